"""Resizing of maps with PyTorch's conventions (no corner alignment, no antialiasing).

Every resize is separable and linear. The general form is two small matrix products without
gathers; enlarging by a whole factor is cheaper still, as a few shifted sums.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

CUBIC_A = -0.75  # PyTorch's bicubic coefficient


def resize_bilinear(x: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b h2 w2 c"]:
    """Resize by bilinear interpolation to `size` (height, width)."""
    for axis, new in zip((1, 2), size, strict=True):
        old = x.shape[axis]
        if new == old:
            continue
        if new % old == 0:
            x = _enlarge(x, axis, new // old)
        else:
            x = _apply(_bilinear_matrix(old, new), x, axis)
    return x


def resize_area(x: Float[Array, "b h w c"], size: tuple[int, int]) -> Float[Array, "b h2 w2 c"]:
    """Resize by adaptive average pooling to `size` (height, width)."""
    for axis, new in zip((1, 2), size, strict=True):
        old = x.shape[axis]
        if new == old:
            continue
        if old % new == 0:
            shape = (*x.shape[:axis], new, old // new, *x.shape[axis + 1 :])
            x = jnp.mean(x.reshape(shape), axis + 1)
        else:
            x = _apply(_area_matrix(old, new), x, axis)
    return x


def resize_bicubic(
    x: Float[Array, "b h w c"], size: tuple[int, int], scale: tuple[float, float]
) -> Float[Array, "b h2 w2 c"]:
    """Resize by bicubic interpolation to `size` (height, width).

    Output i reads the source coordinate (i + 0.5) / scale - 0.5, with one scale per axis.
    """
    for axis, new, factor in zip((1, 2), size, scale, strict=True):
        x = _apply(_bicubic_matrix(x.shape[axis], new, factor), x, axis)
    return x


def resize_masks(
    masks: Float[Array, "b k h w"], size: tuple[int, int], method: str = "area"
) -> Float[Array, "b k h2 w2"]:
    """Resize per-object masks to `size`; `method` is "area" or "bilinear"."""
    b, k, h, w = masks.shape
    resize = {"area": resize_area, "bilinear": resize_bilinear}[method]
    return resize(masks.reshape(b * k, h, w, 1), size).reshape(b, k, *size)


def _enlarge(x: Array, axis: int, factor: int) -> Array:
    """Enlarge one axis bilinearly by a whole factor, one output phase after the other."""
    n = x.shape[axis]
    # Not jnp.pad, which adds empty arrays on the other axes; ONNX has no empty arrays.
    padded = jnp.concatenate([_slice(x, axis, 0, 1), x, _slice(x, axis, n - 1, 1)], axis)
    phases = []
    for phase in range(factor):
        source = (phase + 0.5) / factor - 0.5
        start = int(np.floor(source))
        low = _slice(padded, axis, 1 + start, n)
        high = _slice(padded, axis, 2 + start, n)
        fraction = source - start
        phases.append(low * (1 - fraction) + high * fraction if fraction else low)
    shape = (*x.shape[:axis], n * factor, *x.shape[axis + 1 :])
    return jnp.stack(phases, axis + 1).reshape(shape)


def _slice(x: Array, axis: int, start: int, size: int) -> Array:
    index = [slice(None)] * x.ndim
    index[axis] = slice(start, start + size)
    return x[tuple(index)]


def _apply(matrix: np.ndarray, x: Array, axis: int) -> Array:
    """Apply a matrix (new, old) along one axis of x, in x's dtype and full precision."""
    m = jnp.asarray(matrix, x.dtype)
    letters = "bhwc"
    out = letters.replace(letters[axis], "n")
    return jnp.einsum(f"n{letters[axis]},{letters}->{out}", m, x, precision="highest")


@functools.lru_cache(maxsize=256)
def _bilinear_matrix(old: int, new: int) -> np.ndarray:
    source = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
    low = np.minimum(np.floor(source).astype(int), old - 1)
    high = np.minimum(low + 1, old - 1)
    fraction = source - low
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new), low), 1 - fraction)
    np.add.at(matrix, (np.arange(new), high), fraction)
    return matrix.astype(np.float32)


@functools.lru_cache(maxsize=256)
def _area_matrix(old: int, new: int) -> np.ndarray:
    matrix = np.zeros((new, old))
    for i in range(new):
        start, stop = (i * old) // new, -((-(i + 1) * old) // new)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix.astype(np.float32)


@functools.lru_cache(maxsize=64)
def _bicubic_matrix(old: int, new: int, scale: float) -> np.ndarray:
    source = (np.arange(new) + 0.5) / scale - 0.5
    start = np.floor(source).astype(int)
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        weight = _cubic(np.abs(source - (start + tap)))
        np.add.at(matrix, (np.arange(new), np.clip(start + tap, 0, old - 1)), weight)
    return matrix.astype(np.float32)


def _cubic(d: np.ndarray) -> np.ndarray:
    """Evaluate the cubic convolution kernel at distances d in [0, 2]."""
    near = ((CUBIC_A + 2) * d - (CUBIC_A + 3)) * d * d + 1
    far = ((CUBIC_A * d - 5 * CUBIC_A) * d + 8 * CUBIC_A) * d - 4 * CUBIC_A
    return np.where(d <= 1, near, far)
