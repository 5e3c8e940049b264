"""Max pooling, 3 x 3 with stride 2, with a gradient that is fast on a CPU."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from s3_jax.ops.backend import backend


def max_pool_3x3_stride_2(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Apply 3 x 3 max pooling with stride 2 and padding 1; padding never wins."""
    if backend() == "cpu" and x.shape[1] % 2 == x.shape[2] % 2 == 0:
        return _pool_on_cpu(x)
    return pool_by_window(x)


def pool_by_window(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Compute the pooling in its reference form.

    XLA's CPU compiler carries four index arrays for this form's gradient.
    """
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


@jax.custom_vjp
def _pool_on_cpu(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Compute exactly the result of `pool_by_window`.

    The gradient is also the same: it goes to the first of equal entries.
    """
    return functools.reduce(jnp.maximum, _seen(x))


def _forward(x: Array) -> tuple[Array, Int8[Array, "b h w c"]]:
    """Return the result, and the index (0 to 8) of the window position it came from."""
    best, *others = _seen(x)
    place = jnp.zeros(best.shape, jnp.int8)
    for number, other in enumerate(others, start=1):
        place = jnp.where(other > best, jnp.int8(number), place)
        best = jnp.maximum(best, other)
    return best, place


def _backward(place: Int8[Array, "b h w c"], grad: Float[Array, "b h w c"]) -> tuple[Array]:
    """Return the input's gradient: even rows and columns lie in one window, odd ones in two."""
    b, h, w, c = grad.shape
    windows = {0: (1,), 1: (2, 0)}

    def received(dy: int, dx: int) -> Array:
        """Return the gradient that windows pass to their entries at one of nine positions."""
        part = jnp.where(place == 3 * dy + dx, grad, 0)
        # Position 0 of a window is the last one of the window before.
        after = ((0, 0), (0, int(dy == 0)), (0, int(dx == 0)), (0, 0))
        return jnp.pad(part, after)[:, int(dy == 0) :, int(dx == 0) :]

    def phase(y: int, x: int) -> Array:
        """Return the gradient of the entries whose row and column have these parities."""
        return sum(
            (received(*tap) for tap in itertools.product(windows[y], windows[x])),
            start=jnp.zeros((), grad.dtype),
        )

    rows = [jnp.stack([phase(y, 0), phase(y, 1)], axis=3) for y in (0, 1)]
    return (jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, c),)


_pool_on_cpu.defvjp(_forward, _backward)


def _seen(x: Float[Array, "b h w c"]) -> list[Float[Array, "b h2 w2 c"]]:
    """Return the windows' entries at each of the nine positions, row by row."""
    h, w = x.shape[1], x.shape[2]
    padded = jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0)), constant_values=-jnp.inf)
    return [padded[:, dy : dy + h : 2, dx : dx + w : 2] for dy in range(3) for dx in range(3)]
