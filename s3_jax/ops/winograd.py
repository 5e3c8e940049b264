"""3 x 3 convolution with a quarter of the multiplications: Winograd's minimal filtering F(4, 3).

Along one axis, three taps and six inputs give four neighbouring results, by twelve products.
Written as polynomial multiplication, this needs only six products, one at each of six points:
transform inputs and taps to values at the points, multiply, transform back (Lavin and Gray, CVPR
2016). Here both axes are transformed, so a tile of 4 x 4 results needs 36 products instead of 144.
The products of all tiles at one pair of points are a matrix product over channels.

The choice of points decides how rounding errors grow: to 2.6 times those of the direct sum with the
points below, and to 5.3 times with the usual points 0, 1, -1, 2, -2 (128 channels).
"""

from collections.abc import Sequence
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

TILE = 4  # side of the square of results that are computed together
TAPS = 3
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity
# Minimum channels, and positions in all maps together, for which this form saves time on a CPU.
CHANNELS = 48
CHANNELS_OF_GRADIENTS = 32
POSITIONS = 128
POSITIONS_OF_KERNEL_GRADIENT = 400
# Minimum multiplications of a direct convolution that is worth replacing. Each replaced convolution
# of a program takes about 0.2 s and 10 MB more to compile.
MULTIPLICATIONS = 1.3e8
# Tiles transformed at a time, so that their values at all points stay in the CPU's cache.
TILES = 340


def _transforms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the matrices that transform inputs (6, 6), taps (6, 3), and results (4, 6)."""
    count = len(POINTS) + 1
    inputs, taps, results = (
        np.zeros((count, count)),
        np.zeros((count, TAPS)),
        np.zeros((TILE, count)),
    )
    for i, point in enumerate(POINTS):
        rest = [other for other in POINTS if other != point]
        taps[i] = point ** np.arange(TAPS)
        results[:, i] = point ** np.arange(TILE)
        inputs[i, :-1] = np.poly(rest)[::-1] / np.prod([point - other for other in rest])
    inputs[-1] = np.poly(POINTS)[::-1]
    taps[-1, -1] = results[-1, -1] = 1
    # Scaling by powers of two does not round; matrices of similar magnitude lose least precision.
    size = 2 ** np.round(np.log2(np.abs(inputs).max(axis=1, keepdims=True)))
    return inputs / size, taps * size, results


_INPUTS, _TAPS, _RESULTS = _transforms()
AtPoints = list[Float[Array, "points n c"]]  # a list over points across, an axis over points down
T = TypeVar("T")


def convolve_3x3(
    x: Float[Array, "b h w i"], kernel: Float[Array, "3 3 i o"]
) -> Float[Array, "b h w o"]:
    """Convolve with stride 1 and zero padding of 1, about `TILES` tiles at a time.

    A part of the work is a strip of rows of one large map, or several small maps.
    """
    b, h, w, channels = x.shape
    down, across = -(-h // TILE), -(-w // TILE)
    strips = max(1, round(down * across / TILES))  # of a map
    rows = TILE * -(-down // strips)
    maps = min(b, max(1, TILES // (down * across)))  # in a part
    groups = -(-b // maps)
    end = ((0, groups * maps - b), (1, strips * rows + 1 - h), (1, TILE * across + 1 - w), (0, 0))
    padded = jnp.pad(x, end)
    taps = _taps_at_points(kernel)

    def convolve_part(i: Array | int) -> Float[Array, "maps rows columns o"]:
        start = (i // strips * maps, i % strips * rows, 0, 0)
        size = (maps, rows + TAPS - 1, padded.shape[2], channels)
        return _convolve_tiles(lax.dynamic_slice(padded, start, size), taps)

    count = groups * strips
    results = convolve_part(0) if count == 1 else lax.map(convolve_part, jnp.arange(count))
    results = results.reshape(groups * maps, strips * rows, TILE * across, -1)
    return results[:b, :h, :w]


def kernel_gradient_3x3(
    x: Float[Array, "b h w i"], grad: Float[Array, "b h w o"]
) -> Float[Array, "3 3 i o"]:
    """Return the gradient of the kernel of `convolve_3x3`, from the gradient of its result.

    The same transforms are applied the other way around.
    """
    after = [-size % TILE for size in grad.shape[1:3]]
    grad = jnp.pad(grad, ((0, 0), (0, after[0]), (0, after[1]), (0, 0)))
    x = jnp.pad(x, ((0, 0), (1, 1 + after[0]), (1, 1 + after[1]), (0, 0)))
    products = [
        lax.dot_general(inputs, results, (((1,), (1,)), ((0,), (0,))))
        for inputs, results in zip(
            _at_points(_INPUTS, x), _at_points(_RESULTS.T, grad), strict=True
        )
    ]
    columns = _first(jnp.stack(_transform(_TAPS.T, _first(products)), axis=1))
    return jnp.stack(_transform(_TAPS.T, list(columns)))


def _convolve_tiles(x: Float[Array, "b h2 w2 i"], taps: AtPoints) -> Float[Array, "b h w o"]:
    """Convolve maps of whole tiles, which `x` exceeds by one pixel on every side."""
    b, h, w = x.shape[0], x.shape[1] - 2, x.shape[2] - 2
    products = [
        lax.dot_general(inputs, tap, (((2,), (1,)), ((0,), (0,))))
        for inputs, tap in zip(_at_points(_INPUTS, x), taps, strict=True)
    ]
    columns = _first(jnp.stack(_transform(_RESULTS, _first(products)), axis=2))
    columns = columns.reshape(len(_INPUTS), b, h // TILE, w, -1)
    return jnp.stack(_transform(_RESULTS, list(columns)), axis=2).reshape(b, h, w, -1)


def _at_points(matrix: np.ndarray, x: Float[Array, "b h w c"]) -> AtPoints:
    """Return the values of all tiles of a map, from as many rows and columns as the matrix has.

    Tiles start at every fourth pixel and overlap if they are larger.
    """
    count = matrix.shape[1]
    rows, columns = (
        [slice(i, size - count + i + 1, TILE) for i in range(count)] for size in x.shape[1:3]
    )
    # As one sum of arrays for all points, because it takes half the time to compile.
    weights = jnp.asarray(matrix.T, x.dtype).reshape(count, -1, 1, 1, 1, 1)
    terms = [weight * x[None, :, row] for weight, row in zip(weights, rows, strict=True)]
    down = _first(sum(terms[1:], start=terms[0]))
    values = _transform(matrix, [down[:, :, :, column] for column in columns])
    return _first([one.reshape(len(matrix), -1, x.shape[3]) for one in values])


def _taps_at_points(kernel: Float[Array, "3 3 i o"]) -> AtPoints:
    # As matrix products, because they take a quarter of the time to compile.
    columns = kernel.swapaxes(0, 1).reshape(TAPS * TAPS, -1)
    values = [jnp.asarray(np.kron(across, _TAPS), kernel.dtype) @ columns for across in _TAPS]
    return _first([one.reshape(len(_TAPS), *kernel.shape[2:]) for one in values])


def _transform(matrix: np.ndarray, arrays: Sequence[Array]) -> list[Array]:
    """Multiply a matrix by a vector of arrays."""
    return [_combine(weights, arrays) for weights in matrix]


def _combine(weights: np.ndarray, arrays: Sequence[Array]) -> Array:
    """Return a weighted sum of arrays."""
    terms = [x * np.float32(a) for a, x in zip(weights, arrays, strict=True) if a]
    return sum(terms[1:], start=terms[0])


def _first(arrays: T) -> T:
    """Return the arrays, to be computed before the next step.

    The compiler would otherwise fuse the steps and compute each number once for every use.
    """
    return lax.optimization_barrier(arrays)
