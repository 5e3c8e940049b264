"""Multi-scale deformable attention (Zhu et al. 2021)."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from s3_jax.models.layers import Dtype, Initializer, Linear
from s3_jax.ops.deformable import Form, sampler

POINTS = 4


def cell_centres(shapes: Sequence[tuple[int, int]]) -> Float[np.ndarray, "m 2"]:
    """Return the centres (x, y) in [0, 1] of all cells of grids (height, width), row by row."""
    grids = []
    for h, w in shapes:
        y, x = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
        grids.append(np.stack([x.ravel(), y.ravel()], -1))
    return np.concatenate(grids).astype(np.float32)


class DeformableAttention(nn.Module):
    """Attention to `POINTS` sampled positions per head and level around a query's reference point.

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
        """Sample the features around reference points.

        Args:
          reference: reference point of each query, (x, y) in [0, 1].
          features: maps of all levels, flattened, in order.
          shapes: height and width of each level.
        """
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
        # Sampling positions need float32: half precision is coarser than a pixel.
        offsets = offset_layer(query).reshape(b, m, heads, levels, POINTS, 2)
        weights = weight_layer(query).reshape(b, m, heads, levels * POINTS)
        weights = jax.nn.softmax(weights, -1).reshape(b, m, heads, levels, POINTS)
        values = value(features).reshape(b, -1, heads, c // heads)
        sampled, start = jnp.zeros((), self.dtype), 0
        sample = sampler(self.form)
        for level, (h, w) in enumerate(shapes):
            base = (reference * np.array([w, h], np.float32) - 0.5).reshape(1, m, 1, 1, 2)
            place = offsets[:, :, :, level] + base
            level_values = values[:, start : start + h * w].reshape(b, h, w, heads, c // heads)
            sampled = sampled + sample(level_values, place, weights[:, :, :, level])
            start += h * w
        return out(sampled.reshape(b, m, c))


def _ring_of_directions(heads: int) -> Initializer:
    """Return an initializer of offsets: one direction per head, scaled by the point's number."""
    angle = np.arange(heads) * (2 * math.pi / heads)
    direction = np.stack([np.cos(angle), np.sin(angle)], -1)
    direction = direction / np.abs(direction).max(-1, keepdims=True)
    ring = direction[:, None, None, :] * (1 + np.arange(POINTS))[None, None, :, None]

    def init(key: Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> Array:
        """Return the ring's offsets, repeated for every level."""
        del key
        levels = math.prod(shape) // ring.size
        return jnp.asarray(np.tile(ring, (1, levels, 1, 1)).reshape(shape), dtype)

    return init
