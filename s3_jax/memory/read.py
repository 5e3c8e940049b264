"""Reading the memory: what every object's values say at every query pixel (paper section 3.1)."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from s3_jax.memory.affinity import DenseAffinity, ListedAffinity, dense_affinity, listed_affinity
from s3_jax.memory.in_place import compute_if
from s3_jax.memory.similarity import (
    EXCLUDED,
    feature_similarity,
    masked_softmax,
    query_features,
    similarity,
    token_features,
)
from s3_jax.memory.state import KeyValueMemory, valid_tokens
from s3_jax.memory.top_k import BLOCK

Affinity = ListedAffinity | DenseAffinity

# Query pixels at a time on the way with gathers: their similarities stay in the CPU's cache.
QUERY_CHUNK = 160


def read(
    memory: KeyValueMemory,
    query_key: Float[Array, "b m ck"],
    query_selection: Float[Array, "b m ck"],
    bucket_of: Int[Array, " k"],
    top_k: int,
    *,
    dense: bool = False,
    query_chunk: int | None = None,
) -> tuple[Float[Array, "b k m cv"], KeyValueMemory]:
    """Readout of every object, and the memory with usage and life counted.

    Each query pixel reads the `top_k` most similar tokens of the object's bucket, weighted by a
    softmax over them; fewer if the bucket has fewer, and zeros if it is empty.

    Args:
      memory: n tokens in u buckets for k objects.
      query_key: keys of the m query pixels, float32.
      query_selection: their selection, in [0, 1], float32.
      bucket_of: bucket slot of every object slot; -1 for padding, whose readout is zero.
      top_k: tokens per query pixel.
      dense: use matrix products in place of gathers (tokens that tie with the last one chosen are
        then read too).
      query_chunk: query pixels at a time, which bounds memory. Default: what is quick, or all
        when dense.

    Returns:
      The readout in the dtype of the values, and the memory: usage grows by the affinity summed
      over query pixels and life by 1, for temporary and long-term tokens (without long-term
      memory it is returned as it is).
    """
    affinity_of = partial(dense_affinity if dense else listed_affinity, top_k=top_k)
    chunk = query_chunk or (query_key.shape[1] if dense else QUERY_CHUNK)
    readout, usage = _read(memory, query_key, query_selection, bucket_of, affinity_of, chunk)
    return readout, _count_usage(memory, usage)


def read_all(
    memory: KeyValueMemory,
    query_key: Float[Array, "b m ck"],
    query_selection: Float[Array, "b m ck"],
    bucket_of: Int[Array, " k"],
    *,
    query_chunk: int | None = None,
) -> Float[Array, "b k m cv"]:
    """Readout over all tokens of an object's bucket, as in training; no usage is counted."""
    affinity_of = partial(dense_affinity, top_k=None)
    chunk = query_chunk or query_key.shape[1]
    return _read(memory, query_key, query_selection, bucket_of, affinity_of, chunk)[0]


def read_frames(
    key: Float[Array, "b f hw ck"],
    shrinkage: Float[Array, "b f hw"],
    value: Float[Array, "b k f hw cv"],
    valid: Bool[Array, "b f"],
    query_key: Float[Array, "b m ck"],
    query_selection: Float[Array, "b m ck"],
) -> Float[Array, "b k m cv"]:
    """Readout over all tokens of the valid frames of an explicit stack (training).

    Frames that are not valid get neither weight nor gradient; without any the readout is zero.
    """
    b, f, hw, ck = key.shape
    scores = similarity(
        key.reshape(b, f * hw, ck), shrinkage.reshape(b, f * hw), query_key, query_selection
    )
    valid = jnp.repeat(valid, hw, axis=1, total_repeat_length=f * hw)
    affinity = masked_softmax(scores, jnp.broadcast_to(valid[:, None, :], scores.shape))
    return jnp.einsum(
        "bmn,bknc->bkmc",
        affinity.astype(value.dtype),
        value.reshape(b, value.shape[1], f * hw, value.shape[-1]),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    ).astype(value.dtype)


def _read(
    memory: KeyValueMemory,
    query_key: Float[Array, "b m ck"],
    query_selection: Float[Array, "b m ck"],
    bucket_of: Int[Array, " k"],
    affinity_of: Callable[[Float[Array, "m n"]], Affinity],
    chunk: int,
) -> tuple[Float[Array, "b k m cv"], Float[Array, "b u n"]]:
    """Readout, and the affinity that each token received."""
    valid, m = valid_tokens(memory), query_key.shape[1]

    def read_item(
        key: Array, shrinkage: Array, value: Array, query_key: Array, query_selection: Array
    ) -> tuple[Float[Array, "k m cv"], Float[Array, "u n"]]:
        tokens = _pad_to_blocks(token_features(key, shrinkage, valid))

        def read_chunk(
            usage: Float[Array, "u n"], queries: tuple[Array, Array]
        ) -> tuple[Array, Array]:
            affinity = _bucket_affinities(*queries, tokens, jnp.any(valid, axis=1), affinity_of)
            usage += jax.vmap(lambda one: one.usage(usage.shape[1]))(affinity)
            return usage, _object_readouts(affinity, value, bucket_of)

        queries = _split(query_features(query_key, query_selection), chunk)
        usage, readout = lax.scan(read_chunk, jnp.zeros(valid.shape, jnp.float32), queries)
        return _join(readout)[:, :m], usage

    return jax.vmap(read_item)(
        memory.key, memory.shrinkage, memory.value, query_key, query_selection
    )


def _bucket_affinities(
    queries: Float[Array, "m f"],
    present: Bool[Array, " m"],
    tokens: Float[Array, "u n f"],
    occupied: Bool[Array, " u"],
    affinity_of: Callable[[Float[Array, "m n"]], Affinity],
) -> Affinity:
    """Affinity of a chunk of queries to each bucket (leading axis u); empty ones cost nothing."""

    def affinity(bucket: tuple[Array, Array]) -> Affinity:
        tokens, occupied = bucket

        def compute() -> Affinity:
            found = affinity_of(feature_similarity(queries, tokens))
            return found._replace(weight=jnp.where(present[:, None], found.weight, 0.0))

        return compute_if(occupied, compute)

    return lax.map(affinity, (tokens, occupied))


def _object_readouts(
    affinity: Affinity, value: Float[Array, "k n cv"], bucket_of: Int[Array, " k"]
) -> Float[Array, "k m cv"]:
    """Readout of each object from its bucket, one after the other to bound memory."""

    def readout(slot: Int[Array, ""]) -> Float[Array, "m cv"]:
        bucket = bucket_of[slot]
        of_bucket = jax.tree.map(lambda x: x[jnp.maximum(bucket, 0)], affinity)
        return compute_if(bucket >= 0, lambda: of_bucket.readout(value, slot))

    return lax.map(readout, jnp.arange(value.shape[0]))


def _count_usage(memory: KeyValueMemory, usage: Float[Array, "b u n"]) -> KeyValueMemory:
    """Adds to usage and life of the tokens that can be dropped; permanent ones need neither."""
    if memory.usage is None or memory.life is None:
        return memory
    layout = memory.layout
    place = jnp.arange(layout.num_tokens)
    permanent = (place >= layout.permanent_start) & (place < layout.temporary_start)
    counted = (valid_tokens(memory) & ~permanent[None, :])[None]
    return memory.replace(
        usage=memory.usage + jnp.where(counted, usage, 0.0),
        life=memory.life + jnp.where(counted, 1.0, 0.0),
    )


def _pad_to_blocks(tokens: Float[Array, "u n f"]) -> Float[Array, "u padded f"]:
    """Adds EXCLUDED tokens (their last feature) up to a whole number of blocks for top-k."""
    padding = ((0, 0), (0, -tokens.shape[1] % BLOCK), (0, 0))
    padded = jnp.pad(tokens[..., :-1], padding)
    last = jnp.pad(tokens[..., -1:], padding, constant_values=EXCLUDED)
    return jnp.concatenate([padded, last], axis=-1)


def _split(
    queries: Float[Array, "m f"], chunk: int
) -> tuple[Float[Array, "chunks c f"], Bool[Array, "chunks c"]]:
    """Query features in chunks of about equal size, and which rows are no padding."""
    m = queries.shape[0]
    chunks = math.ceil(m / chunk)
    size = math.ceil(m / chunks)
    queries = jnp.pad(queries, ((0, chunks * size - m), (0, 0)))
    present = jnp.arange(chunks * size) < m
    return queries.reshape(chunks, size, -1), present.reshape(chunks, size)


def _join(readout: Float[Array, "chunks k c cv"]) -> Float[Array, "k m cv"]:
    """Undoes `_split`, but for the padding at the end."""
    joined = jnp.moveaxis(readout, 0, 1)
    return joined.reshape(joined.shape[0], -1, joined.shape[-1])
