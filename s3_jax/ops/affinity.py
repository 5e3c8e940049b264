"""Attention weights of query pixels over memory tokens, as a short list or a dense matrix.

The list is fast where gathers are fast (CPU, GPU), the matrix where only matrix products are (TPU).
Both are computed from the features of one bucket's tokens; missing tokens score EXCLUDED.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from s3_jax.ops.in_place import vary_like
from s3_jax.ops.precision import wide_type, widen
from s3_jax.ops.similarity import EXCLUDED, feature_similarity, masked_softmax
from s3_jax.ops.top_k import BLOCK, block_top_k, top_k_mask

# Query pixels ranked at a time, so that their similarities stay in the CPU's cache.
QUERY_BLOCK = 160


class ListedAffinity(NamedTuple):
    """Indices and weights of the tokens that each query pixel reads; unused entries weigh 0."""

    token: Int[Array, "*u m top"]
    weight: Float[Array, "*u m top"]

    def readout(self, value: Float[Array, "n cv"]) -> Float[Array, "m cv"]:
        """Return the weighted sums of values.

        The loop adds one gathered row per pixel and list entry, and compiles to one pass over the
        result. Gathering all rows first would write m * top * cv numbers.
        """
        rows = widen(value)

        def add(total: Float[Array, "m cv"], place: tuple[Array, Array]) -> tuple[Array, None]:
            """Add the value at one entry of every pixel's list."""
            token, weight = place
            return total + weight[:, None] * rows.at[token].get(mode="clip"), None

        m, top = self.token.shape
        total = jnp.zeros((m, value.shape[-1]), rows.dtype)
        total = vary_like(total, self.weight)
        total, _ = lax.scan(add, total, (self.token.T, self.weight.T), unroll=min(top, 32))
        return total.astype(value.dtype)

    def usage(self, num_tokens: int) -> Float[Array, " n"]:
        """Return the weights summed over query pixels; `num_tokens` is the number n."""
        return jnp.zeros(num_tokens, self.weight.dtype).at[self.token].add(self.weight, mode="drop")


class DenseAffinity(NamedTuple):
    """Weight of every token for every query pixel."""

    weight: Float[Array, "*u m n"]

    def readout(self, value: Float[Array, "n cv"]) -> Float[Array, "m cv"]:
        """Return the weighted sums of values."""
        return lax.dot(
            self.weight.astype(value.dtype),
            value,
            precision=lax.Precision.HIGHEST,
            preferred_element_type=wide_type(value.dtype),
        ).astype(value.dtype)

    def usage(self, num_tokens: int) -> Float[Array, " n"]:
        """Return the weights summed over query pixels; `num_tokens` is the number n."""
        del num_tokens  # the matrix has that many columns
        return jnp.sum(self.weight, axis=0)


def listed_affinity(
    queries: Float[Array, "m f"], tokens: Float[Array, "n f"], top_k: int
) -> ListedAffinity:
    """Apply a softmax over the `top_k` most similar tokens of each query pixel.

    If there are fewer tokens, the softmax covers all of them. If there are none, all weights are 0.
    """
    m, k = queries.shape[0], min(top_k, tokens.shape[0])
    tokens = _whole_blocks(tokens)

    def rank(queries: Float[Array, "block f"]) -> tuple[Array, Array]:
        """Return the scores and tokens that a block of query pixels reads."""
        return block_top_k(feature_similarity(queries, tokens), k)

    num_blocks = math.ceil(m / QUERY_BLOCK)
    block = math.ceil(m / num_blocks)
    queries = jnp.pad(queries, ((0, num_blocks * block - m), (0, 0)))
    scores, token = lax.map(rank, queries.reshape(num_blocks, block, -1))
    scores, token = scores.reshape(-1, k)[:m], token.reshape(-1, k)[:m]
    return ListedAffinity(token, masked_softmax(scores, _exists(scores)))


def dense_affinity(
    queries: Float[Array, "m f"], tokens: Float[Array, "n f"], top_k: int
) -> DenseAffinity:
    """Return the affinity of `listed_affinity` as a matrix.

    Tokens that tie with the last one chosen are read as well.
    """
    scores = feature_similarity(queries, tokens)
    read = _exists(scores)
    if top_k < scores.shape[1]:
        read &= top_k_mask(scores, top_k)
    return DenseAffinity(masked_softmax(scores, read))


def _exists(scores: Float[Array, "m n"]) -> Bool[Array, "m n"]:
    return scores > EXCLUDED / 2


def _whole_blocks(tokens: Float[Array, "n f"]) -> Float[Array, "padded f"]:
    """Append EXCLUDED tokens up to a whole number of top-k blocks."""
    extra = -tokens.shape[0] % BLOCK
    excluded = jnp.zeros((extra, tokens.shape[1]), tokens.dtype).at[:, -1].set(EXCLUDED)
    return jnp.concatenate([tokens, excluded])
