"""Query key, shrinkage and selection of a frame, always in float32.

See docs/network.md, section 2.7.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from s3_jax.models.layers import Conv, Linear
from s3_jax.ops.precision import widen


class Key(NamedTuple):
    """Key of a frame: a query uses key and selection, memory uses all three."""

    key: Float[Array, "b h w ck"]
    shrinkage: Float[Array, "b h w"]
    selection: Float[Array, "b h w ck"]


class KeyProjection(nn.Module):
    """Projection of stride-16 features to key, shrinkage (at least 1) and selection (in (0, 1))."""

    width: int
    key_dim: int

    @nn.compact
    def __call__(self, f16: Float[Array, "b h w c"]) -> Key:
        orthogonal, zeros = nn.initializers.orthogonal(), nn.initializers.zeros
        f16 = widen(f16)
        x = Linear(self.width, dtype=f16.dtype, name="proj")(f16)
        head = functools.partial(Conv, kernel_init=orthogonal, bias_init=zeros, dtype=x.dtype)
        key = head(self.key_dim, name="key")(x)
        shrinkage = head(1, name="shrinkage")(x)[..., 0]
        selection = head(self.key_dim, name="selection")(x)
        return Key(key, jnp.square(shrinkage) + 1, nn.sigmoid(selection))
