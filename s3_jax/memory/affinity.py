"""Which tokens a query pixel reads and how much: as a short list, or as a dense matrix.

The list is quick where gathers are (CPU, GPU), the matrix where only matrix products are (TPU).
Both are made from one bucket's similarities, in which tokens that do not exist are EXCLUDED.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from s3_jax.memory.similarity import EXCLUDED, masked_softmax
from s3_jax.memory.top_k import block_top_k, top_k_mask


class ListedAffinity(NamedTuple):
    """Indices and weights of the tokens each query pixel reads; places not needed weigh 0."""

    token: Int[Array, "*u m top"]
    weight: Float[Array, "*u m top"]

    def readout(self, value: Float[Array, "k n cv"], slot: Int[Array, ""]) -> Float[Array, "m cv"]:
        """Weighted sum of one object's values.

        A loop over places, each adding one gathered row per pixel: compiled into one pass over the
        result, where gathering all rows first would write m * top * cv numbers.
        """

        def add(total: Float[Array, "m cv"], place: tuple[Array, Array]) -> tuple:
            token, weight = place
            row = value.at[slot, token].get(mode="clip").astype(jnp.float32)
            return total + weight[:, None] * row, None

        m, top = self.token.shape
        total = jnp.zeros((m, value.shape[-1]), jnp.float32)
        total, _ = lax.scan(add, total, (self.token.T, self.weight.T), unroll=min(top, 32))
        return total.astype(value.dtype)

    def usage(self, num_tokens: int) -> Float[Array, " n"]:
        """Weights summed over query pixels."""
        return jnp.zeros(num_tokens, jnp.float32).at[self.token].add(self.weight, mode="drop")


class DenseAffinity(NamedTuple):
    """Weight of every token for every query pixel; further tokens weigh 0."""

    weight: Float[Array, "*u m n"]

    def readout(self, value: Float[Array, "k n cv"], slot: Int[Array, ""]) -> Float[Array, "m cv"]:
        """Weighted sum of one object's values."""
        return lax.dot(
            self.weight[:, : value.shape[1]].astype(value.dtype),
            lax.dynamic_index_in_dim(value, slot, keepdims=False),
            precision=lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        ).astype(value.dtype)

    def usage(self, num_tokens: int) -> Float[Array, " n"]:
        """Weights summed over query pixels."""
        return jnp.sum(self.weight[:, :num_tokens], axis=0)


def listed_affinity(scores: Float[Array, "m n"], top_k: int) -> ListedAffinity:
    """Softmax over the `top_k` highest similarities of each query pixel, or all if fewer exist."""
    top, token = block_top_k(scores, min(top_k, scores.shape[1]))
    return ListedAffinity(token, masked_softmax(top, _exists(top)))


def dense_affinity(scores: Float[Array, "m n"], top_k: int | None) -> DenseAffinity:
    """The same as a matrix; None for a softmax over all tokens.

    Tokens that tie with the last one chosen are read as well.
    """
    read = _exists(scores)
    if top_k is not None and top_k < scores.shape[1]:
        read &= top_k_mask(scores, top_k)
    return DenseAffinity(masked_softmax(scores, read))


def _exists(scores: Float[Array, "m n"]) -> Array:
    return scores > EXCLUDED / 2
