"""Sampling of deformable attention (Zhu et al. 2021), in two equal forms.

"gather" reads the four neighbours of every sampling point: best on CPU and GPU. "dense" builds the
interpolation weights as a matrix and multiplies: no gathers, for the matrix units of a TPU.
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
    """The sampling function of a form; "auto" is the dense one on TPU, gathers elsewhere."""
    if form == "auto":
        form = "dense" if backend() == "tpu" else "gather"
    return _SAMPLERS[form]


def sample_by_gather(
    value: Float[Array, "b h w n_heads d"],
    place: Float[Array, "b m n_heads p 2"],
    weight: Float[Array, "b m n_heads p"],
) -> Float[Array, "b m n_heads d"]:
    """Weighted sum of bilinear samples at `place` (x, y in pixels), zero outside the map.

    One gather per point and corner, each fused with its multiply-add: a single batched gather
    would write out sixteen times the result.
    """
    b, h, w, _, d = value.shape
    batch = jnp.arange(b, dtype=jnp.int32).reshape(b, 1) * (h * w)

    def one_head(value: Array, place: Array, weight: Array) -> Array:
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


def sample_by_product(
    value: Float[Array, "b h w n_heads d"],
    place: Float[Array, "b m n_heads p 2"],
    weight: Float[Array, "b m n_heads p"],
) -> Float[Array, "b m n_heads d"]:
    """As `sample_by_gather`, as a product with the matrix of interpolation weights.

    A bilinear sample with zeros outside weighs cell (i, j) by hat(y - i) hat(x - j), where hat
    falls from 1 at 0 to 0 at distance 1. Queries come last in what the matrix is made of, so that
    they fill a TPU's lanes, which 30 rows or columns would not. The backward pass makes the matrix
    again: kept for all heads and layers it would take most of a training step's memory.
    """
    b, h, w, _, d = value.shape
    rows, columns = (jnp.arange(n, dtype=place.dtype).reshape(1, 1, n, 1) for n in (h, w))

    def hat(t: Array, cells: Array) -> Array:
        # By cases, as the gradient on a cell's centre must be that of the cell's upper side.
        origin = jnp.floor(t)
        fraction, step = (t - origin)[:, :, None], cells - origin[:, :, None]
        return jnp.where(step == 0, 1 - fraction, jnp.where(step == 1, fraction, 0))

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def one_head(value: Array, place: Array, weight: Array) -> Array:
        x, y = (jnp.swapaxes(place[..., axis], 1, 2) for axis in (0, 1))  # (b p m)
        weight_y = hat(y, rows) * jnp.swapaxes(weight, 1, 2)[:, :, None]
        weight_x = hat(x, columns)
        points = (weight_y[:, i, :, None] * weight_x[:, i, None] for i in range(weight.shape[2]))
        matrix = functools.reduce(jnp.add, points).astype(value.dtype)  # (b h w m)
        return jnp.einsum("bnm,bnd->bmd", matrix.reshape(b, h * w, -1), value.reshape(b, h * w, d))

    return _head_by_head(one_head, value, place, weight)


def _head_by_head(
    one_head: Callable[[Array, Array, Array], Array], value: Array, place: Array, weight: Array
) -> Float[Array, "b m n_heads d"]:
    """The heads one after the other. For the product that bounds the matrix to queries x cells;
    for the gathers it leaves the channels as the only inner loop, so that places and weights are
    computed once for all of them and not for each."""
    moved = [jnp.moveaxis(x, axis, 0) for x, axis in ((value, 3), (place, 2), (weight, 2))]
    return jnp.moveaxis(jax.lax.map(lambda head: one_head(*head), tuple(moved)), 0, 2)


_SAMPLERS = {"gather": sample_by_gather, "dense": sample_by_product}
