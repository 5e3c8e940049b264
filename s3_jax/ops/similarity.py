"""Anisotropic similarity between memory tokens and query pixels, and softmax over valid tokens.

    similarity(i, j) = shrinkage_i * -sum_c selection_cj (key_ci - query_cj)^2 / sqrt(channels)

The square is expanded, so that one matrix product of *features* computes it: [2 s k, -s k^2, -s] of
a token times [q e, e, sum e q^2] of a query pixel. It is always computed in float32, because the
terms nearly cancel and bfloat16 would lose the difference.
"""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from s3_jax.ops.precision import widen

# Similarity of tokens that must not be read: far below any real value, but finite.
EXCLUDED = -1e30


def token_features(
    key: Float[Array, "*batch n ck"],
    shrinkage: Float[Array, "*batch n"] | None = None,
    valid: Bool[Array, "*batch n"] | None = None,
) -> Float[Array, "*batch n f"]:
    """Return features of memory tokens.

    Args:
      shrinkage: 1 if omitted.
      valid: False for tokens that must not be read; their similarity becomes EXCLUDED.
    """
    key = widen(key)
    scale = jnp.full((*key.shape[:-1], 1), 1 / math.sqrt(key.shape[-1]), key.dtype)
    if shrinkage is not None:
        scale = scale * shrinkage[..., None]
    excluded = jnp.zeros_like(scale)
    if valid is not None:
        excluded = jnp.where(valid[..., None], excluded, EXCLUDED)
    return jnp.concatenate([2 * scale * key, -scale * key**2, -scale, excluded], axis=-1)


def query_features(
    query_key: Float[Array, "*batch m ck"],
    query_selection: Float[Array, "*batch m ck"] | None = None,
) -> Float[Array, "*batch m f"]:
    """Return features of query pixels.

    If the selection is missing, it is taken as 1, and the term that depends only on the query is
    left out.
    """
    query_key = widen(query_key)
    if query_selection is None:
        selection = jnp.ones_like(query_key)
        square = jnp.zeros_like(query_key[..., :1])
    else:
        selection = query_selection
        square = jnp.sum(selection * query_key**2, axis=-1, keepdims=True)
    return jnp.concatenate(
        [query_key * selection, selection, square, jnp.ones_like(square)], axis=-1
    )


def feature_similarity(
    queries: Float[Array, "*batch m f"], tokens: Float[Array, "*batch n f"]
) -> Float[Array, "*batch m n"]:
    """Return similarities: the product of token features and query features."""
    return jnp.einsum("...mf,...nf->...mn", queries, tokens, precision=lax.Precision.HIGHEST)


def similarity(
    key: Float[Array, "*batch n ck"],
    shrinkage: Float[Array, "*batch n"] | None,
    query_key: Float[Array, "*batch m ck"],
    query_selection: Float[Array, "*batch m ck"] | None,
) -> Float[Array, "*batch m n"]:
    """Return the similarity of every query pixel m to every memory token n, float32.

    A missing shrinkage or selection is taken as 1. Without selection, the term -sum_c query_cj^2 is
    left out, as in the published network; together with shrinkage, this changes the result
    (docs/network.md, section 4.1).
    """
    return feature_similarity(
        query_features(query_key, query_selection), token_features(key, shrinkage)
    )


def masked_softmax(
    values: Float[Array, "*batch n"], valid: Bool[Array, "*batch n"]
) -> Float[Array, "*batch n"]:
    """Apply a softmax over the valid entries of the last axis; others get 0 and no gradient.

    A row without valid entries is all zeros rather than NaN.
    """
    values = jnp.where(valid, values, EXCLUDED)
    maximum = lax.stop_gradient(jnp.max(values, axis=-1, keepdims=True))
    weights = jnp.where(valid, jnp.exp(values - maximum), 0.0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    return weights / jnp.where(total == 0, 1.0, total)
