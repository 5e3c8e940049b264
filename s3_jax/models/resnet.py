"""Residual networks (v1, layers 1 to 3) for images and, with mask channels added, for objects."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from s3_jax.models.layers import BatchNorm, Conv, Dtype, Line
from s3_jax.ops.stem import convolve_and_pool

BLOCKS = {18: (2, 2, 2), 50: (3, 4, 6)}


def he_normal_fan_out(
    key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32
) -> Float[Array, "..."]:
    """Draw an HWIO kernel from a normal distribution with standard deviation sqrt(2 / fan_out)."""
    fan_out = math.prod(shape[:-2]) * shape[-1]
    return jax.random.normal(key, shape, dtype) * math.sqrt(2 / fan_out)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions (depth 18) or a 1-3-1 bottleneck (depth 50), with a shortcut."""

    width: int
    bottleneck: bool
    stride: int = 1
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        out_width = self.width * (4 if self.bottleneck else 1)
        plan = [(self.width, 3, self.stride), (out_width, 3, 1)]
        if self.bottleneck:
            plan = [(self.width, 1, 1), (self.width, 3, self.stride), (out_width, 1, 1)]
        y = x
        for i, (features, size, stride) in enumerate(plan, start=1):
            line = BatchNorm(dtype=self.dtype, name=f"norm{i}").line(features)
            y = self._conv(features, size, stride, f"conv{i}")(y, line)
            y = nn.relu(y) if i < len(plan) else y
        if x.shape[-1] != out_width or self.stride != 1:
            line = BatchNorm(dtype=self.dtype, name="shortcut_norm").line(out_width)
            x = self._conv(out_width, 1, self.stride, "shortcut_conv")(x, line)
        return nn.relu(x + y)

    def _conv(self, features: int, size: int, stride: int, name: str) -> Conv:
        return Conv(features, size, stride, use_bias=False, kernel_init=he_normal_fan_out,
                    dtype=self.dtype, name=name)  # fmt: skip


class Stem(nn.Module):
    """Stem: 7 x 7 convolution with stride 2, scale and shift per channel, 3 x 3 max pooling."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b *k h w i"],
        line: Line,
        shared: Float[Array, "b h w s"] | None = None,
    ) -> Float[Array, "n h4 w4 o"]:
        """Return the pooled maps; n is b, times k if x has that axis.

        Args:
          x: maps, one or k per item.
          line: scale and shift of every output channel.
          shared: channels placed before those of x, the same for all k maps of an item.
        """
        x = x if x.ndim == 5 else x[:, None]
        channels = x.shape[-1] + (0 if shared is None else shared.shape[-1])
        kernel = self.param("kernel", he_normal_fan_out, (7, 7, channels, self.features))
        shared = None if shared is None else shared.astype(self.dtype)
        return convolve_and_pool(shared, x.astype(self.dtype), kernel.astype(self.dtype), *line)


class ResNet(nn.Module):
    """ResNet up to stride 16, with BatchNorm that always uses its running statistics.

    The published networks never update these statistics, not even in training (docs/network.md,
    sections 2.6 and 3.1); scale and bias do train.

    depth: 18 or 50.
    """

    depth: int
    dtype: Dtype = jnp.float32
    width: int = 64  # of the stem and the first layer

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *k h w i"], shared: Float[Array, "b h w s"] | None = None
    ) -> tuple[Float[Array, "n h4 w4 c4"], Float[Array, "n h8 w8 c8"], Float[Array, "n h16 w16 c"]]:
        """Return the maps at strides 4, 8 and 16; n is b, times k if x has that axis.

        Args:
          x: maps, one or k per item.
          shared: channels placed before those of x, the same for all k maps of an item.
        """
        line = BatchNorm(dtype=self.dtype, name="stem_norm").line(self.width)
        x = nn.relu(Stem(self.width, self.dtype, name="stem_conv")(x, line, shared))
        outputs = []
        for layer, blocks in enumerate(BLOCKS[self.depth], start=1):
            for block in range(blocks):
                stride = 2 if layer > 1 and block == 0 else 1
                x = ResidualBlock(
                    width=self.width * 2 ** (layer - 1),
                    bottleneck=self.depth == 50,
                    stride=stride,
                    dtype=self.dtype,
                    name=f"layer{layer}_{block}",
                )(x)
            outputs.append(x)
        f4, f8, f16 = outputs
        return f4, f8, f16
