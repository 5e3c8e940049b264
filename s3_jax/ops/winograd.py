"""3 x 3 convolution with half the multiplications: Winograd's minimal filtering F(4, 3).

Three taps and six inputs give four neighbouring results, by twelve products. Written as polynomial
multiplication, this needs only six products, one at each of six points: transform inputs and taps
to values at the points, multiply, transform back (Lavin and Gray, CVPR 2016). This is done along
the height only, which leaves six 1 x 3 convolutions for every four rows of results.

The choice of points decides how rounding errors grow: to 2.5 times those of the direct sum with the
points below, and to 3.7 times with the usual points 0, 1, -1, 2, -2.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

ROWS = 4  # rows of the result that are computed together
TAPS = 3
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity


def _transforms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matrices that transform inputs (6, 6), taps (6, 3), and results (4, 6)."""
    count = len(POINTS) + 1
    inputs, taps, results = (
        np.zeros((count, count)),
        np.zeros((count, TAPS)),
        np.zeros((ROWS, count)),
    )
    for i, point in enumerate(POINTS):
        rest = [other for other in POINTS if other != point]
        taps[i] = point ** np.arange(TAPS)
        results[:, i] = point ** np.arange(ROWS)
        inputs[i, :-1] = np.poly(rest)[::-1] / np.prod([point - other for other in rest])
    inputs[-1] = np.poly(POINTS)[::-1]
    taps[-1, -1] = results[-1, -1] = 1
    # Scaling by powers of two does not round; matrices of similar magnitude lose least precision.
    size = 2 ** np.round(np.log2(np.abs(inputs).max(axis=1, keepdims=True)))
    return inputs / size, taps * size, results


_INPUTS, _TAPS, _RESULTS = _transforms()


def convolve_3x3(
    x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "b h w o"]:
    """Convolve with stride 1 and zero padding of 1."""
    b, h, w, _ = x.shape
    rows = _input_rows(x)
    # One array for all taps, because a single thread would compute each of six small ones.
    taps = jnp.stack([_combine(weights, list(kernel)) for weights in _TAPS])
    products = [
        _convolve_1x3(_combine(weights, rows), taps[i]) for i, weights in enumerate(_INPUTS)
    ]
    results = [_combine(weights, products) for weights in _RESULTS]
    return jnp.stack(results, axis=2).reshape(b, -1, w, results[0].shape[-1])[:, :h]


def kernel_gradient_3x3(
    x: Float[Array, "b h w i"], grad: Float[Array, "b h w o"]
) -> Float[Array, "3 3 i o"]:
    """Return the gradient of the kernel of `convolve_3x3`, from the gradient of its result.

    The same transforms are applied the other way around, with one matrix product for every point
    and column of taps.
    """
    w = x.shape[2]
    padded = jnp.pad(grad, ((0, 0), (0, -grad.shape[1] % ROWS), (0, 0), (0, 0)))
    results = _at_points(_RESULTS.T, [padded[:, i::ROWS] for i in range(ROWS)])
    rows = _input_rows(jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0))))
    columns = []
    for column in range(TAPS):
        seen = _at_points(_INPUTS, [row[:, :, column : column + w] for row in rows])
        columns.append(lax.dot_general(seen, results, (((1,), (1,)), ((0,), (0,)))))
    products = jnp.stack(columns, axis=1)
    return jnp.stack([_combine(weights, list(products)) for weights in _TAPS.T])


def _input_rows(x: Float[Array, "b h w i"]) -> list[Float[Array, "b tiles w i"]]:
    """Return the six rows that every tile of results needs, with zeros above and below."""
    end = ROWS * -(-x.shape[1] // ROWS)
    padded = jnp.pad(x, ((0, 0), (1, end + 1 - x.shape[1]), (0, 0), (0, 0)))
    return [padded[:, i : i + end - ROWS + 1 : ROWS] for i in range(ROWS + TAPS - 1)]


def _combine(weights: np.ndarray, arrays: Sequence[Array]) -> Array:
    """Return a weighted sum of arrays."""
    terms = [x * np.float32(a) for a, x in zip(weights, arrays, strict=True) if a]
    return sum(terms[1:], start=terms[0])


def _convolve_1x3(x: Array, taps: Float[Array, "3 i o"]) -> Array:
    return lax.conv_general_dilated(
        x, taps[None], (1, 1), ((0, 0), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _at_points(
    transform: np.ndarray, rows: Sequence[Float[Array, "b tiles w c"]]
) -> Float[Array, "points n c"]:
    """Return the rows' values at all points, with all positions on one axis."""
    values = [_combine(weights, rows) for weights in transform]
    return jnp.stack([x.reshape(-1, x.shape[-1]) for x in values])
