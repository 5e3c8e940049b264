"""Multi-scale deformable attention (Zhu et al. 2021), in two equal forms.

"gather" reads the four neighbours of every sampling point: best on CPU and GPU. "dense" builds the
interpolation weights as a matrix and multiplies: no gathers, for the matrix units of a TPU.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from s3_jax.backend import backend
from s3_jax.models.layers import Dtype, Initializer, Linear

Form = Literal["auto", "gather", "dense"]
POINTS = 4


def cell_centres(shapes: Sequence[tuple[int, int]]) -> Float[np.ndarray, "m 2"]:
    """Centres (x, y) in [0, 1] of all cells of the given grids (height, width), row by row."""
    grids = []
    for h, w in shapes:
        y, x = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
        grids.append(np.stack([x.ravel(), y.ravel()], -1))
    return np.concatenate(grids).astype(np.float32)


class DeformableAttention(nn.Module):
    """Every query samples `POINTS` places per head and level around its reference point.

    form: "gather", "dense" or "auto" (dense on TPU, gather elsewhere).
    """

    num_heads: int
    num_levels: int = 1
    form: Form = "auto"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "b m c"],
        reference: Float[np.ndarray, "m 2"],
        features: Float[Array, "b n c"],
        shapes: Sequence[tuple[int, int]],
    ) -> Float[Array, "b m c"]:
        """Args: reference: (x, y) in [0, 1]; features: the levels' maps flattened, in order."""
        b, m, c = query.shape
        heads, levels = self.num_heads, self.num_levels
        query = query.astype(self.dtype)
        zeros = nn.initializers.zeros
        offset_layer = Linear(heads * levels * POINTS * 2, kernel_init=zeros,
                              bias_init=_ring_of_directions(heads), name="offsets")  # fmt: skip
        weight_layer = Linear(heads * levels * POINTS, kernel_init=zeros, bias_init=zeros,
                              name="weights")  # fmt: skip
        xavier = nn.initializers.xavier_uniform()
        value = Linear(c, kernel_init=xavier, bias_init=zeros, dtype=self.dtype, name="value")
        out = Linear(c, kernel_init=xavier, bias_init=zeros, dtype=self.dtype, name="out")
        # Sampling places are computed in float32: half precision is coarser than a pixel.
        offsets = offset_layer(query).reshape(b, m, heads, levels, POINTS, 2)
        weights = weight_layer(query).reshape(b, m, heads, levels * POINTS)
        weights = jax.nn.softmax(weights, -1).reshape(b, m, heads, levels, POINTS)
        values = value(features).reshape(b, -1, heads, c // heads)
        sampled, start = jnp.zeros((), self.dtype), 0
        sample = _SAMPLERS[self._resolved_form()]
        for level, (h, w) in enumerate(shapes):
            base = (reference * np.array([w, h], np.float32) - 0.5).reshape(1, m, 1, 1, 2)
            place = offsets[:, :, :, level] + base
            level_values = values[:, start : start + h * w].reshape(b, h, w, heads, c // heads)
            sampled = sampled + sample(level_values, place, weights[:, :, :, level])
            start += h * w
        return out(sampled.reshape(b, m, c))

    def _resolved_form(self) -> str:
        if self.form != "auto":
            return self.form
        return "dense" if backend() == "tpu" else "gather"


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


def _ring_of_directions(heads: int) -> Initializer:
    """Offsets that start as one direction per head, growing with the point's number."""
    angle = np.arange(heads) * (2 * math.pi / heads)
    direction = np.stack([np.cos(angle), np.sin(angle)], -1)
    direction = direction / np.abs(direction).max(-1, keepdims=True)
    ring = direction[:, None, None, :] * (1 + np.arange(POINTS))[None, None, :, None]

    def init(key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
        del key
        levels = math.prod(shape) // ring.size
        return jnp.asarray(np.tile(ring, (1, levels, 1, 1)).reshape(shape), dtype)

    return init
