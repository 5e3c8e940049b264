"""Sampling of deformable attention (Zhu et al. 2021), in two equivalent forms.

"gather" reads the four neighbours of every sampling point, which is best on CPU and GPU. "dense"
multiplies by a matrix of interpolation weights, which suits the matrix units of a TPU.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from s3_jax.ops.backend import backend

Form = Literal["auto", "gather", "dense"]


def sampler(form: Form = "auto") -> Callable[[Array, Array, Array], Array]:
    """Return the sampling function of a form; "auto" is "dense" on TPU and "gather" elsewhere."""
    if form == "auto":
        form = "dense" if backend() == "tpu" else "gather"
    return _SAMPLERS[form]


def sample_by_gather(
    value: Float[Array, "b h w n_heads d"],
    place: Float[Array, "b m n_heads p 2"],
    weight: Float[Array, "b m n_heads p"],
) -> Float[Array, "b m n_heads d"]:
    """Return weighted sums of bilinear samples, which are zero outside the map.

    Uses one gather per point and corner, each fused with its multiply-add: a single batched gather
    would write out sixteen times the result.

    Args:
      place: positions (x, y) in pixels, p for each of m queries; pixel centres are integers.
      weight: weights of the samples.
    """
    b, h, w, _, d = value.shape
    batch = jnp.arange(b, dtype=jnp.int32).reshape(b, 1) * (h * w)

    def one_head(value: Array, place: Array, weight: Array) -> Array:
        """Sample the values of one head."""
        rows = value.reshape(b * h * w, d)
        origin = jnp.floor(place)
        fraction = place - origin
        origin = origin.astype(jnp.int32)
        total = jnp.zeros((*place.shape[:2], d), value.dtype)
        for point, dy, dx in itertools.product(range(place.shape[2]), (0, 1), (0, 1)):
            x, y = origin[..., point, 0] + dx, origin[..., point, 1] + dy
            fx, fy = fraction[..., point, 0], fraction[..., point, 1]
            corner = (fx if dx else 1 - fx) * (fy if dy else 1 - fy) * weight[..., point]
            inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
            corner = jnp.where(inside, corner, 0).astype(value.dtype)
            index = batch + jnp.clip(y, 0, h - 1) * w + jnp.clip(x, 0, w - 1)
            total = total + rows.at[index].get(mode="promise_in_bounds") * corner[..., None]
        return total

    return _head_by_head(one_head, value, place, weight)


@jax.custom_vjp
def sample_by_product(
    value: Float[Array, "b h w n_heads d"],
    place: Float[Array, "b m n_heads p 2"],
    weight: Float[Array, "b m n_heads p"],
) -> Float[Array, "b m n_heads d"]:
    """Compute `sample_by_gather` as a product with a matrix of interpolation weights.

    A bilinear sample with zeros outside gives cell (i, j) the weight hat(y - i) hat(x - j), where
    hat falls from 1 at 0 to 0 at distance 1. The last axis of the matrix's factors is queries,
    which fill a TPU's lanes; 30 rows or columns would not.
    """
    b, h, w, _, d = value.shape

    def one_head(value: Array, place: Array, weight: Array) -> Array:
        """Sample the values of one head."""
        x, y = (jnp.swapaxes(place[..., axis], 1, 2) for axis in (0, 1))  # (b p m)
        weight = jnp.swapaxes(weight, 1, 2)
        matrix = _interpolation(_hat(x, w), _hat(y, h), weight).astype(value.dtype)
        return jnp.einsum("bnm,bnd->bmd", matrix.reshape(b, h * w, -1), value.reshape(b, h * w, d))

    return _head_by_head(one_head, value, place, weight)


def _keep_arguments(value: Array, place: Array, weight: Array) -> tuple[Array, tuple[Array, ...]]:
    return sample_by_product(value, place, weight), (value, place, weight)


def _gradients(kept: tuple[Array, ...], grad: Array) -> tuple[Array, ...]:
    """Return the gradients of `sample_by_product`, for one head and one item at a time.

    The matrix and its gradient, 4 million numbers each for a frame of 480 x 480, are recomputed,
    so they stay in a TPU's fast memory.
    """
    heads_first = zip((*kept, grad), (3, 2, 2, 2), strict=True)
    moved = tuple(jnp.moveaxis(x, axis, 0) for x, axis in heads_first)
    of_item = lambda item: _gradients_of_item(*item)  # noqa: E731
    found = jax.lax.map(lambda head: jax.lax.map(of_item, head), moved)
    return tuple(jnp.moveaxis(x, 0, axis) for x, axis in zip(found, (3, 2, 2), strict=True))


def _gradients_of_item(
    value: Float[Array, "h w d"],
    place: Float[Array, "m p 2"],
    weight: Float[Array, "m p"],
    grad: Float[Array, "m d"],
) -> tuple[Array, Array, Array]:
    """Return the gradients with respect to value, place and weight.

    The matrix's gradient is summed over columns, weighted by each point's hat and by its slope,
    then over rows.
    """
    h, w, d = value.shape
    (x, y), weight = jnp.moveaxis(place, (2, 1), (0, 1)), weight.T  # (p m)
    hat_x, hat_y, slope_x, slope_y = _hat(x, w), _hat(y, h), _slope(x, w), _slope(y, h)
    matrix = _interpolation(hat_x, hat_y, weight).astype(value.dtype).reshape(h * w, -1)
    by_value = jnp.einsum("nm,md->nd", matrix, grad).reshape(h, w, d)
    by_matrix = jnp.einsum("nd,md->nm", value.reshape(h * w, d), grad,
                           preferred_element_type=place.dtype).reshape(h, w, -1)  # fmt: skip

    def over_columns(factor: Float[Array, "p w m"]) -> Float[Array, "p h m"]:
        """Sum the matrix's gradient over columns, weighted by a factor, for every point."""
        return jnp.stack([jnp.sum(by_matrix * one[None], axis=1) for one in factor])

    rows, slopes = over_columns(hat_x), over_columns(slope_x)
    by_x = weight * jnp.sum(hat_y * slopes, axis=1)
    by_y = weight * jnp.sum(slope_y * rows, axis=1)
    by_weight = jnp.sum(hat_y * rows, axis=1)
    return by_value, jnp.stack([by_x.T, by_y.T], axis=-1), by_weight.T


sample_by_product.defvjp(_keep_arguments, _gradients)


def _interpolation(
    hat_x: Float[Array, "*b p w m"], hat_y: Float[Array, "*b p h m"], weight: Float[Array, "*b p m"]
) -> Float[Array, "*b h w m"]:
    """Return the weight of every cell for every query, summed over all points."""
    hat_y = hat_y * weight[..., None, :]
    points = range(weight.shape[-2])
    return functools.reduce(
        jnp.add, (hat_y[..., i, :, None, :] * hat_x[..., i, None, :, :] for i in points)
    )


def _hat(t: Float[Array, "*b p m"], size: int) -> Float[Array, "*b p n m"]:
    """Return the weights of the cells 0 to size - 1 at t."""
    step, fraction = _steps(t, size)
    return jnp.where(step == 0, 1 - fraction, jnp.where(step == 1, fraction, 0))


def _slope(t: Float[Array, "*b p m"], size: int) -> Float[Array, "*b p n m"]:
    """Return the derivative of `_hat` with respect to t; at cell centres, the right derivative."""
    step, _ = _steps(t, size)
    return jnp.where(step == 0, -1, jnp.where(step == 1, 1, 0)).astype(t.dtype)


def _steps(
    t: Float[Array, "*b p m"], size: int
) -> tuple[Float[Array, "*b p n m"], Float[Array, "*b p 1 m"]]:
    """Return every cell's index minus floor(t), and the fractional part of t."""
    origin = jnp.floor(t)
    cells = jnp.arange(size, dtype=t.dtype).reshape((1,) * (t.ndim - 1) + (-1, 1))
    return cells - origin[..., None, :], (t - origin)[..., None, :]


def _head_by_head(
    one_head: Callable[[Array, Array, Array], Array], value: Array, place: Array, weight: Array
) -> Float[Array, "b m n_heads d"]:
    """Apply `one_head` to one head at a time.

    For the product, this limits the matrix to queries x cells. For the gathers, it leaves channels
    as the only inner loop, so that positions and weights are computed once for all channels.
    """
    moved = [jnp.moveaxis(x, axis, 0) for x, axis in ((value, 3), (place, 2), (weight, 2))]
    return jnp.moveaxis(jax.lax.map(lambda head: one_head(*head), tuple(moved)), 0, 2)


_SAMPLERS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "gather": sample_by_gather,
    "dense": sample_by_product,
}
