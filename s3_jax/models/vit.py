"""Vision transformer that provides semantics (docs/network.md, section 2.1)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from s3_jax.config import ViTConfig
from s3_jax.models.layers import Conv, Dtype, LayerNorm, Linear
from s3_jax.ops.attention import attend
from s3_jax.ops.resize import resize_bicubic

PATCH_SIZE = 16
NORM_EPSILON = 1e-6
MLP_RATIO = 4
QUARTERS = 4  # each can be fine-tuned on its own


class SelfAttention(nn.Module):
    """Multi-head self attention with one fused projection to query, key and value."""

    num_heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        b, n, c = x.shape
        qkv = Linear(3 * c, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(b, n, 3, self.num_heads, c // self.num_heads)
        mixed = attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2])
        return Linear(c, dtype=self.dtype, name="proj")(mixed.reshape(b, n, c))


class ViTBlock(nn.Module):
    """Pre-norm transformer block with layer scale."""

    num_heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        attention = SelfAttention(self.num_heads, self.dtype, name="attention")
        x = x + self._scaled(attention(self._norm("norm1")(x)), "scale1")
        hidden = Linear(MLP_RATIO * x.shape[-1], dtype=self.dtype, name="mlp_in")
        out = Linear(x.shape[-1], dtype=self.dtype, name="mlp_out")
        y = out(nn.gelu(hidden(self._norm("norm2")(x)), approximate=False))
        return x + self._scaled(y, "scale2")

    def _norm(self, name: str) -> LayerNorm:
        return LayerNorm(NORM_EPSILON, self.dtype, name=name)

    def _scaled(self, y: Float[Array, "b n c"], name: str) -> Float[Array, "b n c"]:
        scale = self.param(name, nn.initializers.constant(1e-5), (y.shape[-1],))
        return y * scale.astype(y.dtype)[None, None]


class ViT(nn.Module):
    """Patch embedding, class token, resized position table, and transformer blocks."""

    config: ViTConfig
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        config = self.config
        self.patch_embed = Conv(config.embed_dim, PATCH_SIZE, PATCH_SIZE, padding=0,
                                dtype=self.dtype)  # fmt: skip
        normal = nn.initializers.truncated_normal(0.02)
        tokens = 1 + config.position_grid**2
        self.cls_token = self.param("cls_token", normal, (1, 1, config.embed_dim))
        self.pos_embed = self.param("pos_embed", normal, (1, tokens, config.embed_dim))
        self.blocks = [ViTBlock(config.num_heads, self.dtype) for _ in range(config.depth)]

    def embed(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b n c"]:
        """Return class token and patch tokens with positions added, (b, 1 + hw, c)."""
        patches = self.patch_embed(image)
        b, h, w, c = patches.shape
        cls = jnp.broadcast_to(self.cls_token.astype(self.dtype), (b, 1, c))
        tokens = jnp.concatenate([cls, patches.reshape(b, h * w, c)], axis=1)
        return tokens + self.position_table(h, w).astype(self.dtype)

    def position_table(self, h: int, w: int) -> Float[Array, "1 n c"]:
        """Return position embeddings for an h x w grid, class token first.

        The published network resizes by a factor of (n + 0.1) / grid rather than n / grid.
        """
        side = self.config.position_grid
        if h == w == side:
            return self.pos_embed
        grid = self.pos_embed[:, 1:].reshape(1, side, side, -1)
        grid = resize_bicubic(grid, (h, w), ((h + 0.1) / side, (w + 0.1) / side))
        return jnp.concatenate([self.pos_embed[:, :1], grid.reshape(1, h * w, -1)], axis=1)

    def run_blocks(
        self, tokens: Float[Array, "b n c"], start: int, stop: int
    ) -> Float[Array, "b n c"]:
        """Run blocks `start` to `stop - 1`."""
        for block in self.blocks[start:stop]:
            tokens = block(tokens)
        return tokens


def frozen_in_vit(path: tuple[str, ...], config: ViTConfig, trainable: tuple[int, ...]) -> bool:
    """Return True for an encoder's parameter that belongs to its ViT and is not fine-tuned.

    trainable: numbers of the quarters whose blocks are fine-tuned.
    """
    if path[0] != "vit":
        return False
    size = config.depth // QUARTERS
    return path[1] not in {f"blocks_{q * size + i}" for q in trainable for i in range(size)}
