"""ViT with a simple feature pyramid: the ablation without spatial-semantic blocks (2.5)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from s3_jax.config import ViTConfig
from s3_jax.models.layers import Conv, Dtype, LayerNorm, Linear, Upsample2x
from s3_jax.models.vit import FROZEN_VIT, NORM_EPSILON, ViT


class PyramidHead(nn.Module):
    """Enlarges the stride-16 map `doublings` times, then a 1 x 1 and a 3 x 3 convolution."""

    doublings: int
    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        for i in range(self.doublings):
            if i > 0:
                x = nn.gelu(self._norm("up_norm")(x), approximate=False)
            x = Upsample2x(self.features // 2 ** (i + 1), dtype=self.dtype, name=f"up{i + 1}")(x)
        x = Linear(self.features, use_bias=False, dtype=self.dtype, name="proj")(x)
        x = self._norm("proj_norm")(x)
        x = Conv(self.features, use_bias=False, dtype=self.dtype, name="conv")(x)
        return self._norm("conv_norm")(x)

    def _norm(self, name: str) -> LayerNorm:
        return LayerNorm(NORM_EPSILON, self.dtype, name=name)


class FeaturePyramidEncoder(nn.Module):
    """All ViT blocks, run without the class token, feed one head per stride."""

    vit_config: ViTConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w 3"]
    ) -> tuple[Float[Array, "b h4 w4 c"], Float[Array, "b h8 w8 c"], Float[Array, "b h16 w16 c"]]:
        b, h, w = image.shape[0], image.shape[1] // 16, image.shape[2] // 16
        vit = ViT(self.vit_config, self.dtype, name="vit")
        tokens = vit.run_blocks(vit.embed(image)[:, 1:], 0, self.vit_config.depth)
        tokens = checkpoint_name(jax.lax.stop_gradient(tokens), FROZEN_VIT)
        x = tokens.reshape(b, h, w, -1)
        heads = [
            PyramidHead(doublings, self.vit_config.embed_dim, self.dtype, name=f"head{stride}")
            for doublings, stride in ((2, 4), (1, 8), (0, 16))
        ]
        return heads[0](x), heads[1](x), heads[2](x)
