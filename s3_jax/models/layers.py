"""Layers that the network is built from: linear, convolution, normalization, gated update.

The layout is NHWC with HWIO kernels. A 1 x 1 convolution is a `Linear`. Parameters are float32;
`dtype` is the type of the computation. Initial values follow PyTorch's defaults (uniform within
1/sqrt(fan in)), from which the published training starts (docs/network.md, section 8).
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from s3_jax.ops.convolution import convolve, convolve_and_scale
from s3_jax.ops.precision import widen
from s3_jax.ops.products import product

Dtype = jnp.dtype | type
Axes = str | tuple[str, ...]  # names of mapped axes
Initializer = Callable[..., Array]
Line = tuple[Float[Array, " o"], Float[Array, " o"]]  # slope and intercept

BATCH_NORM_EPSILON = 1e-5
BATCH_NORM_MOMENTUM = 0.9


def fan_in_uniform(fan_in: int) -> Initializer:
    """Return an initializer uniform in +-1/sqrt(fan_in), PyTorch's default."""
    bound = 1.0 / math.sqrt(fan_in)

    def init(key: Array, shape: Sequence[int], dtype: Dtype = jnp.float32) -> Array:
        """Draw an array of this shape."""
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def add_bias(x: Float[Array, "... c"], bias: Float[Array, "c"]) -> Float[Array, "... c"]:
    """Add a bias over the last axis, in x's dtype."""
    return x + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


def multiply(x: Float[Array, "*i j"], matrix: Float[Array, "j k"]) -> Float[Array, "*i k"]:
    """Multiply parameters as matrices, in full precision."""
    return jnp.matmul(x, matrix, precision="highest")


class Linear(nn.Module):
    """Linear layer over the last axis, x @ kernel + bias; also used for 1 x 1 convolutions."""

    features: int
    use_bias: bool = True
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
        fan_in = x.shape[-1]
        default = fan_in_uniform(fan_in)
        kernel = self.param("kernel", self.kernel_init or default, (fan_in, self.features))
        y = product(x.astype(self.dtype), kernel.astype(self.dtype))
        if not self.use_bias:
            return y
        return add_bias(y, self.param("bias", self.bias_init or default, (self.features,)))

    def weights(self) -> tuple[Float[Array, "i o"], Float[Array, "o"]]:
        """Return kernel and bias, which exist after the first call."""
        return self.variables["params"]["kernel"], self.variables["params"]["bias"]

    def followed_by(
        self, matrix: Float[Array, "o p"], x: Float[Array, "... i"]
    ) -> Float[Array, "... p"]:
        """Return the layer's result for x times a matrix; the two matrices are multiplied first."""
        kernel, bias = self.weights()
        kernel, bias = multiply(kernel, matrix), multiply(bias, matrix)
        return add_bias(product(x.astype(self.dtype), kernel.astype(self.dtype)), bias)


class Conv(nn.Module):
    """Square convolution with symmetric zero padding, by default (kernel_size - 1) // 2."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: int | None = None
    use_bias: bool = True
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w i"], line: Line | None = None
    ) -> Float[Array, "b h2 w2 o"]:
        """Convolve x.

        Args:
          line: slope and intercept to apply to every channel of the result instead of a bias.
        """
        size = self.kernel_size
        pad = (size - 1) // 2 if self.padding is None else self.padding
        default = fan_in_uniform(x.shape[-1] * size * size)
        shape = (size, size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init or default, shape)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if line is not None:
            return convolve_and_scale(x, kernel, *line, self.stride, pad).astype(self.dtype)
        y = convolve(x, kernel, self.stride, pad)
        if not self.use_bias:
            return y
        return add_bias(y, self.param("bias", self.bias_init or default, (self.features,)))


class Upsample2x(nn.Module):
    """Transposed 2 x 2 convolution with stride 2: one matrix product, then pixel shuffling."""

    features: int
    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b 2*h 2*w o"]:
        default = fan_in_uniform(self.features * 4)  # PyTorch counts output channels here
        shape = (2, 2, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init or default, shape)
        bias = self.param("bias", self.bias_init or default, (self.features,))
        return self._enlarge(x, kernel, bias)

    def followed_by(
        self, matrix: Float[Array, "o p"], x: Float[Array, "b h w i"]
    ) -> Float[Array, "b 2*h 2*w p"]:
        """Return the layer's result for x times a matrix, which is folded into the parameters."""
        params = self.variables["params"]
        kernel, bias = params["kernel"], params["bias"]
        return self._enlarge(x, multiply(kernel, matrix), multiply(bias, matrix))

    def _enlarge(self, x: Array, kernel: Array, bias: Array) -> Array:
        batch, h, w, channels = x.shape
        beside = kernel.astype(self.dtype).transpose(2, 0, 1, 3).reshape(channels, -1)
        y = product(x.astype(self.dtype), beside).reshape(batch, h, w, 2, 2, -1)
        return add_bias(y.swapaxes(2, 3).reshape(batch, 2 * h, 2 * w, -1), bias)


class DepthwiseConv3x3(nn.Module):
    """Depth-wise 3 x 3 convolution as nine shifted multiply-adds.

    XLA's CPU convolution is forty times slower for this shape; accelerators fuse both forms.
    """

    kernel_init: Initializer | None = None
    bias_init: Initializer | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        channels = x.shape[-1]
        default = fan_in_uniform(9)
        kernel = self.param("kernel", self.kernel_init or default, (3, 3, channels))
        bias = self.param("bias", self.bias_init or default, (channels,))
        padded = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (1, 1), (0, 0)))
        return add_bias(depthwise_taps(padded, kernel.astype(self.dtype)), bias)


def depthwise_taps(
    padded: Float[Array, "b h w c"], kernel: Float[Array, "n n c"], stride: int = 1
) -> Float[Array, "b h2 w2 c"]:
    """Convolve depth-wise without padding, tap by tap."""
    size = kernel.shape[0]
    h, w = (stride * ((n - size) // stride) + 1 for n in padded.shape[1:3])
    total = jnp.zeros((), padded.dtype)
    for dy, dx in itertools.product(range(size), repeat=2):
        seen = padded[:, dy : dy + h : stride, dx : dx + w : stride]
        total = total + seen * kernel[dy, dx].reshape(1, 1, 1, -1)
    return total


class LayerNorm(nn.Module):
    """Layer normalization over channels, computed in float32."""

    epsilon: float = 1e-5
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x = widen(x)
        centred = x - jnp.mean(x, -1, keepdims=True)
        var = jnp.mean(jnp.square(centred), -1, keepdims=True)
        shape = (1,) * (x.ndim - 1) + (-1,)
        y = centred * jax.lax.rsqrt(var + self.epsilon) * scale.reshape(shape)
        return add_bias(y, bias).astype(self.dtype)


class RunningStatistics(NamedTuple):
    """Variables of a `BatchNorm`: running mean and variance, and the number of batches."""

    mean: nn.Variable
    var: nn.Variable
    count: nn.Variable  # type: ignore[assignment]  # hides tuple.count


class BatchNorm(nn.Module):
    """Batch normalization over all axes but the last, with PyTorch's running statistics.

    In training (`train=True`) the statistics are those of the batch, averaged over replicas if
    `axis_name` names a mapped axis. The running variance is unbiased, as in PyTorch (that of Flax's
    own layer is biased). Outside training the running statistics are used.
    """

    axis_name: Axes | None = None
    dtype: Dtype = jnp.float32
    epsilon: float = BATCH_NORM_EPSILON

    def __call__(self, x: Float[Array, "... c"], train: bool = False) -> Float[Array, "... c"]:
        scale, bias, running = self._variables(x.shape[-1])
        mean, var = running.mean.value, running.var.value
        if train and not self.is_initializing():
            mean, var, count = self._batch_statistics(x)
            keep = BATCH_NORM_MOMENTUM
            running.mean.value = keep * running.mean.value + (1 - keep) * mean
            unbiased = var * (count / (count - 1))
            running.var.value = keep * running.var.value + (1 - keep) * unbiased
            running.count.value = running.count.value + 1
        factor, shift = self._line(scale, bias, mean, var)
        shape = (1,) * (x.ndim - 1) + (-1,)
        return (x * factor.reshape(shape) + shift.reshape(shape)).astype(self.dtype)

    def line(self, channels: int) -> Line:
        """Return slope and intercept of every channel outside training."""
        scale, bias, running = self._variables(channels)
        return self._line(scale, bias, running.mean.value, running.var.value)

    def followed_by(self, linear: Linear) -> tuple[Float[Array, "c o"], Float[Array, "o"]]:
        """Return the matrix and offset of this layer followed by `linear`, outside training."""
        params, statistics = self.variables["params"], self.variables["batch_stats"]
        factor, shift = self._line(
            params["scale"], params["bias"], statistics["mean"], statistics["var"]
        )
        kernel, bias = linear.weights()
        return factor[:, None] * kernel, multiply(shift, kernel) + bias

    @nn.compact
    def _variables(self, channels: int) -> tuple[Array, Array, RunningStatistics]:
        running = RunningStatistics(
            self.variable("batch_stats", "mean", jnp.zeros, (channels,)),
            self.variable("batch_stats", "var", jnp.ones, (channels,)),
            self.variable("batch_stats", "count", jnp.zeros, (), jnp.int32),
        )
        scale = self.param("scale", nn.initializers.ones, (channels,))
        return scale, self.param("bias", nn.initializers.zeros, (channels,)), running

    def _line(self, scale: Array, bias: Array, mean: Array, var: Array) -> tuple[Array, Array]:
        """Return slope and intercept of the normalization."""
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return factor, bias - mean * factor

    def _batch_statistics(self, x: Array) -> tuple[Array, Array, int]:
        axes = tuple(range(x.ndim - 1))
        x = widen(x)
        mean = jnp.mean(x, axes)
        if self.axis_name is not None:
            mean = jax.lax.pmean(mean, self.axis_name)
        var = jnp.mean(jnp.square(x - mean.reshape((1,) * len(axes) + (-1,))), axes)
        count = x.size // x.shape[-1]
        if self.axis_name is not None:
            var = jax.lax.pmean(var, self.axis_name)
            count *= jax.lax.axis_size(self.axis_name)
        return mean, var, count


def l2_normalize(
    x: Float[Array, "..."], axis: int = -1, epsilon: float = 1e-12
) -> Float[Array, "..."]:
    """Divide x by its Euclidean norm along `axis` (at least `epsilon`).

    The inner guard keeps the gradient of the square root finite at zero.
    """
    square = jnp.sum(jnp.square(x), axis, keepdims=True)
    norm = jnp.sqrt(jnp.where(square == 0, 1.0, square))
    return x / jnp.where(square == 0, 1.0, jnp.maximum(norm, epsilon))


class ChannelAttentionBlock(nn.Module):
    """Residual block whose output channels are weighted by a 1-D convolution over their means.

    See docs/network.md, section 3.2. The 1-D kernel's size grows with the logarithm of the width.
    """

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h w o"]:
        residual = x
        y = Conv(self.features, dtype=self.dtype, name="conv1")(nn.relu(x))
        y = Conv(self.features, dtype=self.dtype, name="conv2")(nn.relu(y))
        weight = nn.sigmoid(self._channel_scores(jnp.mean(y, (1, 2)))).astype(y.dtype)
        if x.shape[-1] != self.features:
            residual = Linear(self.features, dtype=self.dtype, name="shortcut")(x)
        return y * weight[:, None, None, :] + residual

    def _channel_scores(self, mean: Float[Array, "b c"]) -> Float[Array, "b c"]:
        size = int((abs(math.log2(self.features)) + 1) // 2)
        size = size if size % 2 else size + 1
        kernel = self.param("channel_kernel", fan_in_uniform(size), (size,))
        padded = widen(jnp.pad(mean, ((0, 0), (size // 2, size // 2))))
        scores = jnp.zeros_like(widen(mean))
        for i in range(size):
            scores = scores + padded[:, i : i + self.features] * kernel[i]
        return scores


class FeatureFuser(nn.Module):
    """Fusion of an image feature with per-object features.

    Both are projected and summed; two channel-attention blocks follow (docs/network.md, section
    3.1).
    """

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, pix_feat: Float[Array, "b h w c"], objects: Float[Array, "b k h w g"]
    ) -> Float[Array, "b k h w o"]:
        image = Linear(self.features, dtype=self.dtype, name="image_proj")(pix_feat)
        fused = Linear(self.features, dtype=self.dtype, name="object_proj")(objects)
        fused = fused + image[:, None]
        flat = fused.reshape(-1, *fused.shape[2:])
        flat = ChannelAttentionBlock(self.features, dtype=self.dtype, name="block1")(flat)
        flat = ChannelAttentionBlock(self.features, dtype=self.dtype, name="block2")(flat)
        return flat.reshape(fused.shape)


class GatedUpdate(nn.Module):
    """GRU-like update of the sensory memory, in float32 (docs/network.md, section 3.3).

    One 3 x 3 convolution of [input, state] gives forget gate, update gate and candidate.
    """

    @nn.compact
    def __call__(
        self, values: Float[Array, "b k h w g"], state: Float[Array, "b k h w c"]
    ) -> Float[Array, "b k h w c"]:
        channels = state.shape[-1]
        joined = widen(jnp.concatenate([values, state], -1))
        flat = joined.reshape(-1, *joined.shape[2:])
        xavier = nn.initializers.xavier_normal()
        gates = Conv(3 * channels, kernel_init=xavier, dtype=flat.dtype, name="gates")(flat)
        forget, update, candidate = jnp.split(gates.reshape(*state.shape[:-1], -1), 3, axis=-1)
        forget, update = nn.sigmoid(forget), nn.sigmoid(update)
        return forget * state * (1 - update) + update * jnp.tanh(candidate)
