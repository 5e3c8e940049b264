"""Gradients of convolutions in the forms that are fastest on a CPU.

XLA would use convolutions with a different axis order. All gradients are those of
`convolution.convolve`, with zero padding on all four sides and channels last.
"""

import itertools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from s3_jax.ops import winograd
from s3_jax.ops.precision import wide_type

LAYOUT = ("NHWC", "HWIO", "NHWC")
# Up to this many channels, the input is the smaller side of a kernel's gradient.
FEW_CHANNELS = 8


def input_gradient(
    shape: tuple[int, ...],
    kernel: Float[Array, "n n i o"],
    grad: Float[Array, "b h2 w2 o"],
    stride: int,
    padding: int,
) -> Float[Array, "b h w i"]:
    """Return the gradient of an input of the given shape, from the gradient of the result."""
    size, (b, h, w, _) = kernel.shape[0], shape
    if (size, stride, padding) == (7, 2, 3) and h % 2 == w % 2 == 0:
        return _input_gradient_in_blocks(kernel, grad)
    wide = min(kernel.shape[2:]) >= winograd.CHANNELS_OF_GRADIENTS and grad.dtype == jnp.float32
    if wide and _is_plain_3x3(kernel, stride, padding):
        if b * h * w >= winograd.POSITIONS:
            return winograd.convolve_3x3(grad, _turned(kernel))
        return _input_gradient_by_product(kernel, grad)
    return input_gradient_by_convolution(shape, kernel, grad, stride, padding)


def input_gradient_by_convolution(
    shape: tuple[int, ...],
    kernel: Float[Array, "n n i o"],
    grad: Float[Array, "b h2 w2 o"],
    stride: int,
    padding: int,
) -> Float[Array, "b h w i"]:
    """Compute `input_gradient` in its reference form.

    The gradient is dilated by the stride and convolved with the flipped kernel.
    """
    low = kernel.shape[0] - 1 - padding
    spread = [stride * (n - 1) + 1 for n in grad.shape[1:3]]
    pad = [(low, old + padding - n) for old, n in zip(shape[1:3], spread, strict=True)]
    return lax.conv_general_dilated(
        grad,
        _turned(kernel),
        (1, 1),
        pad,
        lhs_dilation=(stride, stride),
        dimension_numbers=LAYOUT,
    )


def kernel_gradient(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "n n i o"],
    grad: Float[Array, "b h2 w2 o"],
    stride: int,
    padding: int,
) -> Float[Array, "n n i o"]:
    """Return the gradient of the kernel, summed in float32."""
    size, _, inputs, outputs = kernel.shape
    taken = (x, size, grad, stride, padding)
    if stride == 1 and outputs * size**2 <= inputs:
        gradient = _kernel_gradient_of_few_outputs(x, size, grad, padding)
    elif _is_plain_3x3(kernel, stride, padding) and _suits_winograd(x, kernel):
        gradient = winograd.kernel_gradient_3x3(x, grad)
    elif inputs <= FEW_CHANNELS and x.shape[0] > 1:
        gradient = _kernel_gradient_by_rows(*taken)
    else:
        gradient = kernel_gradient_by_taps(*taken)
    return gradient.astype(kernel.dtype)


def kernel_gradient_by_taps(
    x: Float[Array, "b h w i"],
    size: int,
    grad: Float[Array, "b h2 w2 o"],
    stride: int,
    padding: int,
) -> Float[Array, "n n i o"]:
    """Compute `kernel_gradient` in its reference form.

    Every tap is one product of the gradient and the inputs under that tap.
    """
    h, w = (stride * (n - 1) + 1 for n in grad.shape[1:3])
    padded = _padded(x, padding)
    taps = [
        _product(padded[:, dy : dy + h : stride, dx : dx + w : stride], grad)
        for dy in range(size)
        for dx in range(size)
    ]
    return jnp.stack(taps).reshape(size, size, x.shape[-1], grad.shape[-1])


def _input_gradient_by_product(
    kernel: Float[Array, "3 3 i o"], grad: Float[Array, "b h w o"]
) -> Float[Array, "b h w i"]:
    """Compute every position's part of nine neighbours' gradients in one product, then sum them.

    The kernel is not flipped, because flipping is expensive compared with a small map.
    """
    b, h, w, outputs = grad.shape
    inputs = kernel.shape[2]
    sent = lax.dot_general(
        grad.reshape(-1, outputs), kernel.reshape(-1, outputs), (((1,), (1,)), ((), ()))
    ).reshape(b, h, w, 3, 3, inputs)
    total = jnp.zeros((), grad.dtype)
    for dy, dx in itertools.product(range(3), repeat=2):
        move = ((0, 0, 0), (dy - 1, 1 - dy, 0), (dx - 1, 1 - dx, 0), (0, 0, 0))
        total = total + lax.pad(sent[:, :, :, dy, dx], jnp.zeros((), sent.dtype), move)
    return total


def _input_gradient_in_blocks(
    kernel: Float[Array, "7 7 i o"], grad: Float[Array, "b h w o"]
) -> Float[Array, "b 2*h 2*w i"]:
    """Return the input gradient of a 7 x 7 convolution with stride 2.

    It is computed as the gradient of a 4 x 4 convolution over blocks of 2 x 2 positions, which
    needs no dilation by the stride.
    """
    b, h, w, _ = grad.shape
    inputs = kernel.shape[2]
    taps = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    taps = taps.reshape(4, 2, 4, 2, inputs, -1).transpose(0, 2, 1, 3, 4, 5)
    taps = _turned(taps.reshape(4, 4, 4 * inputs, -1))
    pad = ((1, 2), (1, 2))
    blocks = lax.conv_general_dilated(grad, taps, (1, 1), pad, dimension_numbers=LAYOUT)
    blocks = blocks.reshape(b, h, w, 2, 2, inputs).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, 2 * h, 2 * w, inputs)


def _kernel_gradient_of_few_outputs(
    x: Float[Array, "b h w i"], size: int, grad: Float[Array, "b h2 w2 o"], padding: int
) -> Float[Array, "n n i o"]:
    """Compute the kernel's gradient in one product.

    The gradient is shifted rather than the input, which has more channels.
    """
    last, outputs = size - 1, grad.shape[-1]
    h, w = x.shape[1:3]
    padded = _padded(grad, last - padding)
    moved = [
        padded[:, last - dy : last - dy + h, last - dx : last - dx + w]
        for dy in range(size)
        for dx in range(size)
    ]
    product = _product(jnp.concatenate(moved, axis=-1), x)
    return product.reshape(size, size, outputs, -1).swapaxes(2, 3)


def _kernel_gradient_by_rows(
    x: Float[Array, "b h w i"],
    size: int,
    grad: Float[Array, "b h2 w2 o"],
    stride: int,
    padding: int,
) -> Float[Array, "n n i o"]:
    """Compute one product for every row of taps, with the row's columns stacked as channels."""
    h, w = (stride * (n - 1) + 1 for n in grad.shape[1:3])
    padded = _padded(x, padding)
    columns = [padded[:, :, dx : dx + w : stride] for dx in range(size)]
    joined = jnp.concatenate(columns, axis=-1)
    rows = [_product(joined[:, dy : dy + h : stride], grad) for dy in range(size)]
    return jnp.stack(rows).reshape(size, size, x.shape[-1], grad.shape[-1])


def _is_plain_3x3(kernel: Array, stride: int, padding: int) -> bool:
    return (kernel.shape[0], stride, padding) == (3, 1, 1)


def _suits_winograd(x: Array, kernel: Array) -> bool:
    return (
        x.dtype == jnp.float32
        and min(kernel.shape[2:]) >= winograd.CHANNELS_OF_GRADIENTS
        and x.size // x.shape[3] >= winograd.POSITIONS_OF_KERNEL_GRADIENT
    )


def _turned(kernel: Float[Array, "n n i o"]) -> Float[Array, "n n o i"]:
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _padded(x: Float[Array, "b h w c"], by: int) -> Float[Array, "b h2 w2 c"]:
    return jnp.pad(x, ((0, 0), (by, by), (by, by), (0, 0)))


def _product(x: Float[Array, "b h w i"], y: Float[Array, "b h w o"]) -> Float[Array, "i o"]:
    """Sum products over all positions, in float32."""
    x, y = (z.reshape(-1, z.shape[-1]) for z in (x, y))
    return lax.dot_general(
        x, y, (((0,), (0,)), ((), ())), preferred_element_type=wide_type(x.dtype)
    )
