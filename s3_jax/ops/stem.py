"""First layers of a ResNet, down to stride 4: convolution, normalization and pooling.

On a TPU they work on blocks of 4 x 4 pixels. The 16 pixels of a block become channels, and so do
the four convolution results within it, which pooling reduces by a maximum. Three to five channels
at full size would leave most of a TPU's 128 lanes empty, forward and backward.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from s3_jax.ops.backend import backend
from s3_jax.ops.convolution import convolve_and_scale
from s3_jax.ops.convolution_gradients import LAYOUT
from s3_jax.ops.pooling import max_pool_3x3_stride_2

BLOCK = 4


def convolve_and_pool(
    shared: Float[Array, "b h w s"] | None,
    own: Float[Array, "b k h w i"],
    kernel: Float[Array, "7 7 c o"],
    factor: Float[Array, " o"],
    shift: Float[Array, " o"],
) -> Float[Array, "b*k h4 w4 o"]:
    """Convolve [shared, own] 7 x 7, scale, shift, and max-pool 3 x 3, both with stride 2.

    Args:
      shared: channels that an item's k maps have in common, or None.
      own: channels of each map.
      factor: scale of each output channel of the convolution.
      shift: number added to each output channel after scaling.
    """
    height, width = own.shape[2:4]
    if backend() == "tpu" and height % BLOCK == width % BLOCK == 0:
        return _in_blocks(shared, own, kernel, factor, shift)
    return convolve_then_pool(shared, own, kernel, factor, shift)


def convolve_then_pool(
    shared: Array | None, own: Array, kernel: Array, factor: Array, shift: Array
) -> Array:
    """Compute `convolve_and_pool` layer by layer, as the reference form."""
    b, k, height, width, _ = own.shape
    if shared is not None:
        repeated = jnp.broadcast_to(shared[:, None], (b, k, height, width, shared.shape[-1]))
        own = jnp.concatenate([repeated, own], axis=-1)
    x = own.reshape(b * k, height, width, -1)
    y = convolve_and_scale(x, kernel, factor, shift, stride=2, padding=3)
    return max_pool_3x3_stride_2(y.astype(own.dtype))


def _in_blocks(
    shared: Array | None, own: Array, kernel: Array, factor: Array, shift: Array
) -> Array:
    """Compute `convolve_and_pool` on blocks, convolving shared channels once for all k maps."""
    b, k, height, width, _ = own.shape
    common = 0 if shared is None else shared.shape[-1]
    y = _convolve_blocks(own.reshape(b * k, height, width, -1), kernel[:, :, common:])
    y = y.reshape(b, k, *y.shape[1:])
    if shared is not None:
        y = y + _convolve_blocks(shared, kernel[:, :, :common])[:, None]
    y = y.reshape(b * k, *y.shape[2:-1], 4, -1) * factor.reshape(1, 1, 1, 1, -1)
    return _pool_phases(y + shift.reshape(1, 1, 1, 1, -1)).astype(own.dtype)


def _convolve_blocks(x: Array, kernel: Array) -> Float[Array, "b h4 w4 phases"]:
    """Return the 2 x 2 convolution results within every block, as channels.

    They depend on 3 x 3 blocks, of which the shifted kernels cover 9 x 9 pixels.
    """
    b, height, width, i = x.shape
    blocks = x.reshape(b, height // BLOCK, BLOCK, width // BLOCK, BLOCK, i)
    blocks = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(b, height // BLOCK, width // BLOCK, -1)
    placed = [
        jnp.pad(kernel, ((1 + 2 * dy, 4 - 2 * dy), (1 + 2 * dx, 4 - 2 * dx), (0, 0), (0, 0)))
        for dy in (0, 1)
        for dx in (0, 1)
    ]
    taps = jnp.stack(placed, axis=3).reshape(3, BLOCK, 3, BLOCK, i, -1)
    taps = taps.transpose(0, 2, 1, 3, 4, 5).reshape(3, 3, BLOCK * BLOCK * i, -1)
    return lax.conv_general_dilated(
        blocks, taps, (1, 1), ((1, 1), (1, 1)), dimension_numbers=LAYOUT
    )


def _pool_phases(y: Float[Array, "b h4 w4 4 o"]) -> Float[Array, "b h4 w4 o"]:
    """Max-pool the results of blocks, where the first of equal values receives the gradient.

    A pooling window holds its block's results and the last results of the blocks above and to the
    left.
    """

    def largest(before: Array, first: Array, second: Array, axis: int) -> Array:
        """Return the maximum of three neighbours, the first of which is in the block before."""
        pad = [(0, 0, 0)] * before.ndim
        pad[axis] = (1, -1, 0)
        last = lax.pad(before, jnp.asarray(-jnp.inf, before.dtype), pad)
        return functools.reduce(lambda best, x: jnp.where(x > best, x, best), (last, first, second))

    upper, lower = (
        largest(y[..., right, :], y[..., left, :], y[..., right, :], axis=2)
        for left, right in ((0, 1), (2, 3))
    )
    return largest(lower, upper, lower, axis=1)
