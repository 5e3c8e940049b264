"""Memory reading: the affinity-weighted average of every object's values at every query pixel.

docs/network.md, section 4.2; XMem (ECCV 2022), section 3.2.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from s3_jax.memory.state import KeyValueMemory, valid_tokens
from s3_jax.models.key_projection import Key
from s3_jax.ops.affinity import DenseAffinity, ListedAffinity, dense_affinity, listed_affinity
from s3_jax.ops.in_place import compute_if
from s3_jax.ops.precision import wide_type
from s3_jax.ops.similarity import masked_softmax, query_features, similarity, token_features

Affinity = ListedAffinity | DenseAffinity
AffinityFunction = Callable[[Float[Array, "m f"], Float[Array, "n f"]], Affinity]


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
    """Return the readout of every object, and the memory with usage and life updated.

    Each query pixel reads the `top_k` most similar tokens of the object's bucket, weighted by a
    softmax over them; fewer if the bucket has fewer, and zeros if it is empty. The choice of tokens
    is a constant for differentiation.

    Args:
      memory: n tokens in u buckets for k objects.
      query_key: keys of the m query pixels, float32.
      query_selection: their selection, in [0, 1], float32.
      bucket_of: bucket slot of every object slot; -1 for padding, whose readout is zero.
      top_k: tokens per query pixel.
      dense: use matrix products instead of gathers (tokens that tie with the last one chosen are
        then read too).
      query_chunk: number of query pixels at a time, which limits the memory that `dense` needs; all
        by default.

    Returns:
      The readout in the dtype of the values, and the memory. Usage grows by the affinity summed
        over query pixels and life by 1, for temporary and long-term tokens (without long-term
        memory it is returned unchanged).
    """
    affinity_of = partial(dense_affinity if dense else listed_affinity, top_k=top_k)
    queries = query_features(query_key, query_selection)
    readout, usage = _read_chunks(memory, queries, bucket_of, affinity_of, query_chunk)
    return readout, _count_usage(memory, usage)


def read_frames(
    key: Float[Array, "b f hw ck"],
    shrinkage: Float[Array, "b f hw"],
    value: Float[Array, "b k f hw cv"],
    valid: Bool[Array, "b f"],
    query_key: Float[Array, "b m ck"],
    query_selection: Float[Array, "b m ck"],
) -> Float[Array, "b k m cv"]:
    """Return the readout over all tokens of the valid frames of an explicit stack (training).

    Invalid frames get neither weight nor gradient; without any valid frame the readout is zero.
    """
    b, f, hw, ck = key.shape
    scores = similarity(
        key.reshape(b, f * hw, ck), shrinkage.reshape(b, f * hw), query_key, query_selection
    )
    valid = jnp.broadcast_to(valid[:, None, :, None], (b, scores.shape[1], f, hw))
    affinity = masked_softmax(scores, valid.reshape(scores.shape))
    return jnp.einsum(
        "bmn,bknc->bkmc",
        affinity.astype(value.dtype),
        value.reshape(b, value.shape[1], f * hw, value.shape[-1]),
        precision=lax.Precision.HIGHEST,
        preferred_element_type=wide_type(value.dtype),
    ).astype(value.dtype)


def read_one_frame(
    key: Key, value: Float[Array, "b k h w cv"], query: Key
) -> Float[Array, "b k h w cv"]:
    """Return the readout over all tokens of a single frame, as a map."""
    b, k, h, w, _ = value.shape

    def flat(x: Float[Array, "b h w c"]) -> Float[Array, "b hw c"]:
        return x.reshape(b, h * w, -1)

    readout = read_frames(
        flat(key.key)[:, None],
        key.shrinkage.reshape(b, 1, h * w),
        value.reshape(b, k, 1, h * w, -1),
        jnp.ones((b, 1), bool),
        flat(query.key),
        flat(query.selection),
    )
    return readout.reshape(value.shape)


def _read_chunks(
    memory: KeyValueMemory,
    queries: Float[Array, "b m f"],
    bucket_of: Int[Array, " k"],
    affinity_of: AffinityFunction,
    chunk: int | None,
) -> tuple[Float[Array, "b k m cv"], Float[Array, "b u n"]]:
    """Read one chunk of query pixels at a time; return the readout and each token's affinity."""
    b, m, _ = queries.shape
    chunk = min(chunk or m, m)
    read_some = partial(_read, memory, bucket_of=bucket_of, affinity_of=affinity_of)
    whole = m // chunk
    chunks = queries[:, : whole * chunk].reshape(b, whole, chunk, -1)
    readout, usage = lax.map(read_some, jnp.moveaxis(chunks, 1, 0))
    readout = jnp.moveaxis(readout, 0, 2)
    readout = readout.reshape(b, readout.shape[1], whole * chunk, -1)
    usage = jnp.sum(usage, axis=0)
    if whole * chunk == m:
        return readout, usage
    last_readout, last_usage = read_some(queries[:, whole * chunk :])
    return jnp.concatenate([readout, last_readout], axis=2), usage + last_usage


def _read(
    memory: KeyValueMemory,
    queries: Float[Array, "b m f"],
    bucket_of: Int[Array, " k"],
    affinity_of: AffinityFunction,
) -> tuple[Float[Array, "b k m cv"], Float[Array, "b u n"]]:
    """Read all given query pixels at once, one batch element after the other."""
    buckets, objects = memory.key.shape[1], memory.value.shape[1]
    valid = valid_tokens(memory)

    def read_item(item: Int[Array, ""]) -> tuple[Float[Array, "k m cv"], Float[Array, "u n"]]:
        """Read for one batch item."""

        def affinity_to(bucket: Int[Array, ""]) -> Affinity:
            """Return the affinity of the query pixels to a bucket's tokens."""

            def compute() -> Affinity:
                key, shrinkage = memory.key[item, bucket], memory.shrinkage[item, bucket]
                return affinity_of(queries[item], token_features(key, shrinkage, valid[bucket]))

            return compute_if(jnp.any(valid[bucket]), compute)

        affinity = lax.map(affinity_to, jnp.arange(buckets))

        def readout_of(slot: Int[Array, ""]) -> Float[Array, "m cv"]:
            """Return the readout of the object in a slot."""

            def compute() -> Float[Array, "m cv"]:
                of_bucket = jax.tree.map(lambda x: x[bucket_of[slot]], affinity)
                return of_bucket.readout(memory.value[item, slot])

            return compute_if(bucket_of[slot] >= 0, compute)

        readout = lax.map(readout_of, jnp.arange(objects))
        usage = jax.vmap(lambda affinity: affinity.usage(valid.shape[1]))(affinity)
        return readout, usage

    # Loops with dynamic indices instead of vmap, whose gathers are slower.
    return lax.map(read_item, jnp.arange(queries.shape[0]))


def _count_usage(memory: KeyValueMemory, usage: Float[Array, "b u n"]) -> KeyValueMemory:
    """Update usage and life of the tokens that can be dropped; permanent ones need neither."""
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
