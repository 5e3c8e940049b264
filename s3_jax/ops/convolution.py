"""Square convolutions with derivatives that are fast on every backend."""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from s3_jax.ops import winograd
from s3_jax.ops.backend import backend
from s3_jax.ops.convolution_gradients import LAYOUT, input_gradient, kernel_gradient
from s3_jax.ops.products import product

# Name for rematerialization: custom derivatives hide that a result is a convolution.
CONVOLUTION = "convolution"
# Maximum channels for which blocks save time in a first convolution on a CPU.
BLOCK_INPUTS = 6
BLOCK_OUTPUTS = 32


def convolve(
    x: Float[Array, "b h w i"], kernel: Float[Array, "n n i o"], stride: int, padding: int
) -> Float[Array, "b h2 w2 o"]:
    """Convolve with zero padding on all four sides, in the dtype of the arguments.

    Args:
      kernel: square, in the order height, width, input channels, output channels.
      stride: in pixels, along both axes.
      padding: number of zeros on each side.
    """
    if backend() == "cpu":
        if kernel.shape[0] == 1 and padding == 0:
            return _convolve_1x1(x, kernel, stride)
        return checkpoint_name(_convolve_on_cpu(x, kernel, stride, padding), CONVOLUTION)
    if backend() == "tpu" and _leaves_lanes_empty(x, kernel, stride, padding):
        return _convolve_blocks(x, kernel, padding)
    return _convolve(x, kernel, stride, padding)


def convolve_and_scale(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "n n i o"],
    factor: Float[Array, " o"],
    shift: Float[Array, " o"],
    stride: int,
    padding: int,
) -> Float[Array, "b h2 w2 o"]:
    """Multiply a convolution by a factor and add a shift, channel by channel."""
    if backend() == "cpu" and x.dtype == jnp.float32:
        y = _convolve_and_scale_on_cpu(x, kernel, factor, shift, stride, padding)
        return checkpoint_name(y, CONVOLUTION)
    return _scale(convolve(x, kernel, stride, padding), factor, shift)


def _scale(x: Array, factor: Array, shift: Array) -> Array:
    return x * factor.reshape(1, 1, 1, -1) + shift.reshape(1, 1, 1, -1)


def _convolve_1x1(x: Array, kernel: Array, stride: int) -> Array:
    """Compute a 1 x 1 convolution as a matrix product, which takes a third less time."""
    x = x[:, ::stride, ::stride]
    return product(x.reshape(-1, x.shape[-1]), kernel[0, 0]).reshape(*x.shape[:-1], -1)


def _convolve(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    pad = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(x, kernel, (stride, stride), pad, dimension_numbers=LAYOUT)


def _leaves_lanes_empty(x: Array, kernel: Array, stride: int, padding: int) -> bool:
    """Return True for a ResNet's first convolution on frames of even size.

    Its few input channels would leave most of a TPU's 128 lanes empty.
    """
    even = x.shape[1] % 2 == x.shape[2] % 2 == 0
    return (kernel.shape[0], stride, padding) == (7, 2, 3) and x.shape[-1] <= 8 and even


def _convolve_blocks(x: Array, kernel: Array, padding: int) -> Array:
    """Compute a convolution with stride 2 as one without stride over blocks of 2 x 2 positions.

    The four positions of a block are stacked as channels. The taps are the same, with zeros added
    so that they cover whole blocks.
    """
    b, h, w, i = x.shape
    before = padding % 2
    size = (kernel.shape[0] + before + 1) // 2
    after = 2 * size - kernel.shape[0] - before
    taps = jnp.pad(kernel, ((before, after), (before, after), (0, 0), (0, 0)))
    taps = taps.reshape(size, 2, size, 2, i, -1).transpose(0, 2, 1, 3, 4, 5)
    blocks = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    rows, columns = blocks.shape[1] // 2, blocks.shape[2] // 2
    blocks = blocks.reshape(b, rows, 2, columns, 2, i).transpose(0, 1, 3, 2, 4, 5)
    start = (padding + before) // 2

    def sides(length: int, count: int) -> tuple[int, int]:
        """Return the padding, in blocks, of an axis of this length."""
        results = (length + 2 * padding - kernel.shape[0]) // 2 + 1
        return start, results + size - 1 - start - count

    return lax.conv_general_dilated(
        blocks.reshape(b, rows, columns, 4 * i),
        taps.reshape(size, size, 4 * i, -1),
        (1, 1),
        (sides(h, rows), sides(w, columns)),
        dimension_numbers=LAYOUT,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve_on_cpu(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """Compute `_convolve` faster, with custom derivatives.

    JAX's own derivatives are convolutions with a different axis order. XLA's CPU compiler converts
    them to the fast order only outside loops; in a scan they take 30 times as long as the custom
    ones.
    """
    if _saves_multiplications(x, kernel, stride, padding):
        return winograd.convolve_3x3(x, kernel)
    if stride == 2 and _saves_time_in_blocks(*kernel.shape[2:]):
        return _convolve_blocks(x, kernel, padding)
    return _convolve(x, kernel, stride, padding)


def _saves_multiplications(x: Array, kernel: Array, stride: int, padding: int) -> bool:
    return (
        (kernel.shape[0], stride, padding) == (3, 1, 1)
        and x.dtype == jnp.float32
        and min(kernel.shape[2:]) >= winograd.CHANNELS
        and x.size // x.shape[3] * kernel.size >= winograd.MULTIPLICATIONS
    )


def _saves_time_in_blocks(inputs: int, outputs: int) -> bool:
    """Return True where XLA's own form takes longer, 1.1 to 3.5 times as measured.

    With 32 outputs, that is for three or five channels, but not for an even number.
    """
    slow = outputs < BLOCK_OUTPUTS or (outputs == BLOCK_OUTPUTS and inputs in (3, 5))
    return inputs <= BLOCK_INPUTS and slow


def _forward(
    x: Array, kernel: Array, stride: int, padding: int
) -> tuple[Array, tuple[Array, Array]]:
    return _convolve_on_cpu(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: int, saved: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    return (
        input_gradient(x.shape, kernel, grad, stride, padding),
        kernel_gradient(x, kernel, grad, stride, padding),
    )


_convolve_on_cpu.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _convolve_and_scale_on_cpu(
    x: Array, kernel: Array, factor: Array, shift: Array, stride: int, padding: int
) -> Array:
    """Apply `convolve` and `_scale`; the backward pass does not need the convolution's result."""
    return _scale(convolve(x, kernel, stride, padding), factor, shift)


def _forward_scaled(
    x: Array, kernel: Array, factor: Array, shift: Array, stride: int, padding: int
) -> tuple[Array, tuple[Array, Array, Array]]:
    y = _convolve_and_scale_on_cpu(x, kernel, factor, shift, stride, padding)
    return y, (x, kernel, factor)


def _backward_scaled(
    stride: int, padding: int, saved: tuple[Array, Array, Array], grad: Array
) -> tuple[Array, Array, Array, Array]:
    """Return gradients of a scaled convolution.

    The factor can be multiplied into the kernel, so its gradient follows from the kernel's.
    """
    x, kernel, factor = saved
    weight = factor.reshape(1, 1, 1, -1)
    _, pull_back = jax.vjp(lambda x, k: convolve(x, k, stride, padding), x, kernel * weight)
    grad_x, grad_scaled = pull_back(grad)
    grad_factor = jnp.sum(grad_scaled * kernel, (0, 1, 2))
    return grad_x, grad_scaled * weight, grad_factor, jnp.sum(grad, (0, 1, 2))


_convolve_and_scale_on_cpu.defvjp(_forward_scaled, _backward_scaled)
