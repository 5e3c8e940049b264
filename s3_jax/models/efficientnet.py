"""EfficientNet-Lite0, the compact semantic prior; BatchNorm always uses its running statistics.

Tan and Le 2019, without squeeze-and-excitation and with ReLU6.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from s3_jax.models.layers import BatchNorm, Dtype, Linear, depthwise_taps
from s3_jax.models.resnet import he_normal_fan_out
from s3_jax.ops.backend import backend
from s3_jax.ops.convolution import convolve

BATCH_NORM_EPSILON = 1e-3
STEM_WIDTH = 32
# Numbers in a widened map from which CPUs compute it in strips, and about as many in a strip.
WIDE = 3 * 2**20
STRIP = 2**19


class Stage(NamedTuple):
    """Blocks of one resolution: number, kernel size, first stride, widening, output channels."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    features: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
# Stages of each part; each part can be fine-tuned on its own.
PARTS = ((0, 1, 2, 3), (4,), (5, 6))
NUM_BLOCKS = sum(stage.blocks for stage in STAGES)


def part_names(part: int) -> list[str]:
    """Return the names of the modules and parameters that make up one of `PARTS`."""
    firsts = np.cumsum([0, *(stage.blocks for stage in STAGES)])
    blocks = range(firsts[PARTS[part][0]], firsts[PARTS[part][-1] + 1])
    stem = ["stem_kernel", "stem_norm"] if part == 0 else []
    return stem + [f"block{i}" for i in blocks]


class SemanticMaps(NamedTuple):
    """Outputs of stages, named by stride."""

    f4: Float[Array, "b h4 w4 24"]
    f8: Float[Array, "b h8 w8 40"]
    f16_low: Float[Array, "b h w 80"]
    f16: Float[Array, "b h w 112"]
    f32: Float[Array, "b h2 w2 320"]


class DetailedMaps(NamedTuple):
    """`SemanticMaps`, preceded by the map at stride 2."""

    f2: Float[Array, "b h1 w1 16"]
    f4: Float[Array, "b h4 w4 24"]
    f8: Float[Array, "b h8 w8 40"]
    f16_low: Float[Array, "b h w 80"]
    f16: Float[Array, "b h w 112"]
    f32: Float[Array, "b h2 w2 320"]


class EfficientNetLite0(nn.Module):
    """Network from images to maps at strides 2 to 32.

    Images are RGB in [0, 1], with height and width multiples of 32.
    """

    dtype: Dtype = jnp.float32

    def __call__(self, image: Float[Array, "b H W 3"]) -> SemanticMaps:
        return SemanticMaps(*self.detailed(image)[1:])

    @nn.compact
    def detailed(self, image: Float[Array, "b H W 3"]) -> DetailedMaps:
        """Return the maps at strides 2 to 32, two of them at stride 16."""
        outputs: list[Array] = []
        # The public weights were trained on (grey level - 127) / 128.
        x = self._stem((image * 255 - 127) / 128)
        for stage in range(len(STAGES)):
            x = self._stage(x, stage)
            outputs.append(x)
        f2, f4, f8, f16_low, f16, _, f32 = outputs
        return DetailedMaps(f2, f4, f8, f16_low, f16, f32)

    def _stem(self, x: Array) -> Array:
        kernel = self.param("stem_kernel", he_normal_fan_out, (3, 3, 3, STEM_WIDTH))
        padded = pad_same(x.astype(self.dtype), 3, 2)
        x = convolve(padded, kernel.astype(self.dtype), 2, 0)
        norm = BatchNorm(dtype=self.dtype, epsilon=BATCH_NORM_EPSILON, name="stem_norm")
        return nn.relu6(norm(x))

    def _stage(self, x: Array, number: int) -> Array:
        first = sum(stage.blocks for stage in STAGES[:number])
        stage = STAGES[number]
        for i in range(stage.blocks):
            stride = stage.stride if i == 0 else 1
            block = InvertedResidual(stage.kernel, stride, stage.expansion, stage.features,
                                     self.dtype, name=f"block{first + i}")  # fmt: skip
            x = block(x)
        return x


class InvertedResidual(nn.Module):
    """Inverted residual block: it widens, convolves depth-wise, and narrows.

    The input is added to the result if their shapes are equal.
    """

    kernel: int
    stride: int
    expansion: int
    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        if self._is_wide(x) and not self.is_initializing():
            y = self._in_strips(x)
        else:
            y = self._narrow(pad_same(self._widen(x), self.kernel, self.stride))
        return x + y if x.shape == y.shape else y

    def _widen(self, x: Array) -> Array:
        if self.expansion == 1:
            return x
        y = self._pointwise(x.shape[-1] * self.expansion, "expand")(x)
        return nn.relu6(self._norm("expand_norm")(y))

    def _narrow(self, y: Array) -> Array:
        """Convolve a widened, padded map and reduce its channels."""
        shape = (self.kernel, self.kernel, y.shape[-1])
        kernel = self.param("depthwise", he_normal_fan_out, shape)
        y = depthwise_taps(y, kernel.astype(self.dtype), self.stride)
        y = nn.relu6(self._norm("depthwise_norm")(y))
        return self._norm("project_norm")(self._pointwise(self.features, "project")(y))

    def _is_wide(self, x: Array) -> bool:
        return backend() == "cpu" and self.expansion > 1 and x.size * self.expansion >= WIDE

    def _in_strips(self, x: Array) -> Array:
        """Compute one strip of rows after another, so that its widened map stays in the cache.

        Strips read the rows around them as well, which are widened again for each.
        """
        height = math.ceil(x.shape[1] / self.stride)
        rows = math.ceil(height * STRIP / (x.size * self.expansion))  # of results, in a strip
        strips = math.ceil(height / rows)
        (above, _), sides = (same_padding(n, self.kernel, self.stride) for n in x.shape[1:3])
        read = (rows - 1) * self.stride + self.kernel
        below = (strips - 1) * rows * self.stride + read - above - x.shape[1]
        padded = jnp.pad(x, ((0, 0), (above, below), (0, 0), (0, 0)))

        def strip(block: "InvertedResidual", _: None, start: Array) -> tuple[None, Array]:
            """Return the rows of a strip, from the rows of the padded input that begin at `start`.

            The convolution pads with zeros, which are not widened zeros.
            """
            y = block._widen(lax.dynamic_slice_in_dim(padded, start, read, axis=1))
            row = start - above + jnp.arange(read)
            inside = (row >= 0) & (row < x.shape[1])
            y = jnp.where(inside.reshape(1, -1, 1, 1), y, 0)
            y = jnp.pad(y, ((0, 0), (0, 0), sides, (0, 0)))
            # The compiler would otherwise widen again for every tap.
            return None, block._narrow(lax.optimization_barrier(y))

        scan = nn.scan(
            strip,
            variable_broadcast=("params", "batch_stats"),
            split_rngs={"params": False},
            out_axes=1,
        )
        _, y = scan(self, None, jnp.arange(strips) * (rows * self.stride))
        return y.reshape(y.shape[0], strips * rows, *y.shape[3:])[:, :height]

    def _pointwise(self, features: int, name: str) -> Linear:
        return Linear(features, use_bias=False, dtype=self.dtype, name=name)

    def _norm(self, name: str) -> BatchNorm:
        return BatchNorm(dtype=self.dtype, epsilon=BATCH_NORM_EPSILON, name=name)


def pad_same(x: Float[Array, "b h w c"], kernel: int, stride: int) -> Float[Array, "b h2 w2 c"]:
    """Pad with zeros so that a convolution gives size / stride, rounded up."""
    return jnp.pad(x, ((0, 0), *(same_padding(n, kernel, stride) for n in x.shape[1:3]), (0, 0)))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the number of zeros before and after an axis of a map.

    If their sum is odd, the extra zero follows the map, as in TensorFlow.
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2
