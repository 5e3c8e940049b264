"""Spatial-semantic image encoder.

Paper section 3.2; docs/network.md, sections 2.1 to 2.4.

A frozen ViT provides semantics, and a small convolutional stem provides spatial detail. Each of
four blocks runs a quarter of the ViT. Its detail tokens then read the class and mean tokens
(semantic embedding) and, by deformable attention, the ViT's map (spatial dependency).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from s3_jax.config import ViTConfig
from s3_jax.models.attention import MultiHeadAttention
from s3_jax.models.deformable_attention import DeformableAttention, cell_centres
from s3_jax.models.encoders import Encoder, Features, keep, normalize
from s3_jax.models.layers import (
    Axes,
    BatchNorm,
    Conv,
    DepthwiseConv3x3,
    Dtype,
    LayerNorm,
    Linear,
    Upsample2x,
    add_bias,
)
from s3_jax.models.resnet import he_normal_fan_out
from s3_jax.models.vit import NORM_EPSILON, QUARTERS, ViT, frozen_in_vit
from s3_jax.ops.pooling import max_pool_3x3_stride_2
from s3_jax.ops.resize import resize_bilinear

NUM_BLOCKS = QUARTERS
EXTRA_EXTRACTORS = 2  # in the last block only
truncated_normal = nn.initializers.truncated_normal(0.02)
zeros = nn.initializers.zeros


def depthwise_init(key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
    """Draw a 3 x 3 depth-wise kernel with the standard deviation sqrt(2 / fan_out)."""
    return jax.random.normal(key, shape, dtype) * np.sqrt(2 / 9)


class SpatialPrior(nn.Module):
    """Convolutional stem at stride 4, and maps of the ViT's width at strides 8 and 16.

    `proj1` projects the stem to that width.
    """

    features: int
    stem_width: int = 64
    axis_name: Axes | None = None
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        self.proj1, self.proj2, self.proj3 = (self._proj() for _ in range(3))

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w 3"], train: bool = False
    ) -> tuple[Float[Array, "b h4 w4 s"], Float[Array, "b h8 w8 c"], Float[Array, "b h16 w16 c"]]:
        x = image
        for i, stride in enumerate((2, 1, 1), start=1):
            x = self._conv(x, self.stem_width, stride, f"stem{i}", train)
        x4 = max_pool_3x3_stride_2(x)
        x8 = self._conv(x4, 2 * self.stem_width, 2, "conv2", train)
        x16 = self._conv(x8, 4 * self.stem_width, 2, "conv3", train)
        return x4, self.proj2(x8), self.proj3(x16)

    def _conv(self, x: Array, features: int, stride: int, name: str, train: bool) -> Array:
        conv = Conv(features, 3, stride, use_bias=False, kernel_init=he_normal_fan_out,
                    dtype=self.dtype, name=f"{name}_conv")  # fmt: skip
        norm = BatchNorm(self.axis_name, self.dtype, name=f"{name}_norm")
        return nn.relu(norm(conv(x), train))

    def _proj(self) -> Linear:
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        return Linear(self.features, kernel_init=init, bias_init=zeros, dtype=self.dtype)


class SemanticEmbedding(nn.Module):
    """Attention from detail tokens to the class token and the mean patch token.

    The residual is the normalized input, as in the published network.
    """

    num_heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, detail: Float[Array, "b m c"], cls: Float[Array, "b 1 c"], x: Float[Array, "b n c"]
    ) -> Float[Array, "b m c"]:
        detail = LayerNorm(dtype=self.dtype, name="norm")(detail)
        semantics = jnp.concatenate([cls, jnp.mean(x, axis=1, keepdims=True)], axis=1)
        attention = MultiHeadAttention(self.num_heads, truncated_normal, self.dtype, name="attend")
        return detail + attention(detail, semantics, semantics)


class ConvFeedForward(nn.Module):
    """Feed-forward layer with a depth-wise convolution on each of the two maps."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, detail: Float[Array, "b m c"], h: int, w: int) -> Float[Array, "b m c"]:
        b, _, c = detail.shape
        hidden = Linear(c // 4, kernel_init=truncated_normal, bias_init=zeros,
                        dtype=self.dtype, name="fc1")(detail)  # fmt: skip
        depthwise = DepthwiseConv3x3(depthwise_init, zeros, self.dtype, name="depthwise")
        f8, f16 = hidden[:, : 4 * h * w], hidden[:, 4 * h * w :]
        f8 = depthwise(f8.reshape(b, 2 * h, 2 * w, -1)).reshape(f8.shape)
        f16 = depthwise(f16.reshape(b, h, w, -1)).reshape(f16.shape)
        hidden = nn.gelu(jnp.concatenate([f8, f16], axis=1), approximate=False)
        return Linear(c, kernel_init=truncated_normal, bias_init=zeros,
                      dtype=self.dtype, name="fc2")(hidden)  # fmt: skip


class SpatialDependency(nn.Module):
    """Deformable attention from detail tokens to the ViT's map, then a feed-forward layer."""

    num_heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, detail: Float[Array, "b m c"], x: Float[Array, "b n c"], h: int, w: int
    ) -> Float[Array, "b m c"]:
        norm = functools.partial(LayerNorm, NORM_EPSILON, self.dtype)
        attention = DeformableAttention(self.num_heads, dtype=self.dtype, name="attend")
        reference = cell_centres([(2 * h, 2 * w), (h, w)])
        detail = detail + attention(
            norm(name="query_norm")(detail), reference, norm(name="feature_norm")(x), [(h, w)]
        )
        feed_forward = ConvFeedForward(self.dtype, name="feed_forward")
        return detail + feed_forward(norm(name="feed_forward_norm")(detail), h, w)


class SpatialSemanticBlock(nn.Module):
    """Semantic embedding, followed by `num_extractors` spatial dependencies.

    Published networks have one spatial dependency per block, and three in the last block. Ablations
    have none, or pass no class token, which leaves out the semantic embedding.
    """

    num_heads: int
    num_extractors: int = 1
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        detail: Float[Array, "b m c"],
        cls: Float[Array, "b 1 c"] | None,
        x: Float[Array, "b n c"],
        h: int,
        w: int,
    ) -> Float[Array, "b m c"]:
        if cls is not None:
            embed = SemanticEmbedding(self.num_heads, self.dtype, name="semantic_embedding")
            detail = embed(detail, cls, x)
        for i in range(self.num_extractors):
            extract = SpatialDependency(self.num_heads, self.dtype,
                                        name=f"spatial_dependency{i}")  # fmt: skip
            detail = extract(detail, x, h, w)
        return detail


class Details(nn.Module):
    """Detail tokens, and the maps made from them; this module shares an encoder's scope."""

    features: int
    stem_width: int = 64
    axis_name: Axes | None = None
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        c, dtype = self.features, self.dtype
        self.spatial_prior = SpatialPrior(c, self.stem_width, self.axis_name, dtype)
        self.level_embed = self.param("level_embed", nn.initializers.normal(1.0), (2, c))
        self.up = Upsample2x(c, he_normal_fan_out, zeros, dtype)
        self.norm4, self.norm8, self.norm16 = (BatchNorm(self.axis_name, dtype) for _ in range(3))

    def tokens(
        self, image: Float[Array, "b H W 3"], train: bool
    ) -> tuple[Float[Array, "b h4 w4 s"], Float[Array, "b m c"]]:
        """Return the stem's map, and tokens at strides 8 and 16 with level embeddings added."""
        stem4, detail8, detail16 = self.spatial_prior(image, train)
        level, b = self.level_embed.astype(self.dtype), image.shape[0]
        tokens = [
            detail8.reshape(b, -1, self.features) + level[0].reshape(1, 1, -1),
            detail16.reshape(b, -1, self.features) + level[1].reshape(1, 1, -1),
        ]
        return stem4, jnp.concatenate(tokens, axis=1)

    def pyramid(
        self,
        stem4: Float[Array, "b h4 w4 s"],
        detail: Float[Array, "b m c"],
        maps: tuple[Array, Array, Array],
        train: bool,
    ) -> Features:
        """Return the encoder's features, the sums of details and maps.

        maps: maps to add at strides 4, 8 and 16; smaller ones are enlarged.
        """
        b, h4, w4, _ = stem4.shape
        cells8 = (h4 // 2) * (w4 // 2)
        f8 = detail[:, :cells8].reshape(b, h4 // 2, w4 // 2, -1)
        f16 = detail[:, cells8:].reshape(b, h4 // 4, w4 // 4, -1)
        f4 = self.up(f8) + self.spatial_prior.proj1(stem4)
        f4 = self.norm4(f4 + resize_bilinear(maps[0], (h4, w4)), train)
        changing = train or self.is_initializing()
        return Features(
            self.norm16(f16 + maps[2], train),
            self.norm8(f8 + resize_bilinear(maps[1], (h4 // 2, w4 // 2)), train),
            f4,
            None if changing else functools.partial(self._project4, stem4, f8, maps[0]),
        )

    def _project4(self, stem4: Array, f8: Array, map4: Array, linear: Linear) -> Array:
        """Return linear(f4) without computing f4, which is several times as wide.

        All steps from a term of f4 to the result are linear, so they combine into one matrix.
        """
        matrix, offset = self.norm4.followed_by(linear)
        mapped = map4.astype(self.dtype) @ matrix.astype(self.dtype)
        details = self.up.followed_by(matrix, f8) + self.spatial_prior.proj1.followed_by(
            matrix, stem4
        )
        return add_bias(details + resize_bilinear(mapped, (stem4.shape[1], stem4.shape[2])), offset)


class SpatialSemanticEncoder(Encoder):
    """Encoder from images to feature maps at strides 4, 8 and 16.

    `trainable_blocks` are quarters of the ViT.
    """

    settings: ViTConfig = ViTConfig()

    @nn.compact
    def __call__(self, image: Float[Array, "b H W 3"], train: bool = False) -> Features:
        image, c = normalize(image), self.settings.embed_dim
        b, h, w = image.shape[0], image.shape[1] // 16, image.shape[2] // 16
        details = Details(c, axis_name=self.axis_name, dtype=self.dtype)
        nn.share_scope(self, details)
        stem4, detail = details.tokens(image, train)
        maps, size = [], self.settings.depth // NUM_BLOCKS
        vit = ViT(self.settings, self.dtype, name="vit")
        tokens = vit.embed(image)
        for i in range(NUM_BLOCKS):
            tokens = keep(vit.run_blocks(tokens, i * size, (i + 1) * size))
            cls, x = tokens[:, :1], tokens[:, 1:]
            extractors = 1 + (EXTRA_EXTRACTORS if i == NUM_BLOCKS - 1 else 0)
            block = SpatialSemanticBlock(self.settings.num_heads, extractors, self.dtype,
                                         name=f"block{i}")  # fmt: skip
            detail = block(detail, cls, x, h, w)
            maps.append(x.reshape(b, h, w, c))
        return details.pyramid(stem4, detail, (maps[0], maps[1], maps[2]), train)

    @nn.nowrap
    def frozen(self, path: tuple[str, ...], trainable_blocks: tuple[int, ...]) -> bool:
        """Return True for the ViT, except for the quarters with these numbers."""
        return frozen_in_vit(path, self.settings, trainable_blocks)
