"""Selection of entries by index: a gather, or a product with a matrix of zeros and ones on TPU.

A TPU gathers row by row, and adds the gradients of gathered rows in a loop, one at a time. Its
matrix units handle all rows at once, and exactly, because only one term of every sum is not zero.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from s3_jax.ops.backend import backend


def take_tokens(
    values: Float[Array, "b n groups d"], index: Int[Array, "b m groups"]
) -> Float[Array, "b m groups d"]:
    """Return the token at `index` in every group (such as a head)."""
    if backend() != "tpu":
        return jnp.take_along_axis(values, index[..., None], axis=1)
    chosen = jax.nn.one_hot(index, values.shape[1], dtype=values.dtype)
    return jnp.einsum("bmgn,bngd->bmgd", chosen, values, precision=lax.Precision.HIGHEST)


def take_rows(values: Float[Array, "b n *rest"], index: Int[Array, "b m"]) -> Array:
    """Return values[i, index[i]] for every batch item i, (b m *rest)."""
    if backend() != "tpu":
        return jax.vmap(lambda x, numbers: x[numbers])(values, index)
    b, n, *rest = values.shape
    chosen = jax.nn.one_hot(index, n, dtype=values.dtype)
    flat = values.reshape(b, n, math.prod(rest))
    taken = jnp.einsum("bmn,bnc->bmc", chosen, flat, precision=lax.Precision.HIGHEST)
    return taken.reshape(b, index.shape[1], *rest)
