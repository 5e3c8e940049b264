"""Long-term memory: prototypes condensed from full working memory; the least used are dropped.

Paper section 3.1, as in XMem (section 3.3 there). Both steps rank tokens by usage: the affinity
that a token received per read it took part in.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from s3_jax.memory.state import (
    INITIAL_LIFE,
    KeyValueMemory,
    MemoryLayout,
    usage_record,
    valid_tokens,
)
from s3_jax.ops import in_place
from s3_jax.ops.precision import widen
from s3_jax.ops.similarity import similarity
from s3_jax.ops.top_k import largest_places


class Condensed(NamedTuple):
    """Result of condensing each bucket.

    survivors: long-term tokens to keep if there are too many, most used first.
    key, selection, shrinkage: those of the prototypes.
    affinity: softmax weights by which each prototype averages the candidates' values.
    """

    survivors: Int[Array, "b u kept"]
    key: Float[Array, "b u p ck"]
    selection: Float[Array, "b u p ck"]
    shrinkage: Float[Array, "b u p"]
    affinity: Float[Array, "b u p n"]


class Placement(NamedTuple):
    """Positions of each bucket's tokens after consolidation.

    full: True if the bucket is consolidated.
    overflow: True if only the survivors of its long-term tokens are kept.
    held: number of long-term tokens in front of the prototypes.
    newest: number of temporary tokens that stay.
    """

    full: Bool[Array, " u"]
    overflow: Bool[Array, " u"]
    held: Int[Array, " u"]
    newest: int


def consolidate(
    memory: KeyValueMemory,
    num_prototypes: int,
    min_frames: int,
    buffer_tokens: int,
    bucket_of: Int[Array, " k"],
) -> KeyValueMemory:
    """Condense the temporary frames of every bucket whose temporary part is full.

    All but the newest `min_frames - 1` temporary frames are candidates. The `num_prototypes` most
    used tokens among them (all, if there are fewer) become prototypes. They keep their key and
    selection; their shrinkage and values are averages over the candidates, weighted by affinity.
    They join long-term memory with usage 0 and life 1e-7, most used first, and the newest frames
    move to the front of the temporary part. If long-term memory has no room for `num_prototypes`
    more, its least used tokens are dropped first, so that `buffer_tokens` more would fit as well.

    Call it after every write to a memory with a long-term part. Buckets that are not full do not
    change, and if none is full, nothing is computed. The result is differentiable in the kept and
    averaged values; the choice of tokens is a constant.

    Args:
      memory: a memory with a long-term part.
      num_prototypes: number of tokens made from the candidates.
      min_frames: working-memory frames left afterwards, including one permanent frame.
      buffer_tokens: extra long-term tokens to free whenever some have to be dropped.
      bucket_of: bucket slot of every object slot; -1 for padding.

    Raises:
      ValueError: the memory has no long-term part, or the numbers do not match its layout.
    """
    _check(memory, num_prototypes, min_frames, buffer_tokens)
    layout = memory.layout
    kept = layout.long_term - num_prototypes - buffer_tokens
    newest = (min_frames - 1) * layout.tokens_per_frame
    full = memory.temporary_frames >= layout.temporary
    overflow = full & (memory.long_term_tokens >= layout.long_term - num_prototypes)
    held = jnp.where(overflow, kept, memory.long_term_tokens)
    condensed = in_place.compute_if(
        jnp.any(full), lambda: _condense(memory, num_prototypes, kept, newest)
    )
    memory = _rewrite(memory, Placement(full, overflow, held, newest), condensed, bucket_of)
    num_made = condensed.key.shape[2]
    return memory.replace(
        long_term_tokens=jnp.where(full, held + num_made, memory.long_term_tokens),
        temporary_frames=jnp.where(full, min_frames - 1, memory.temporary_frames),
    )


def _check(
    memory: KeyValueMemory, num_prototypes: int, min_frames: int, buffer_tokens: int
) -> None:
    usage_record(memory)  # raises without a long-term part
    layout = memory.layout
    if not 1 <= min_frames <= layout.temporary:
        raise ValueError(
            f"min_frames is {min_frames}, but must be between 1 and MemoryLayout.temporary "
            f"({layout.temporary})"
        )
    if num_prototypes < 1 or num_prototypes + buffer_tokens > layout.long_term:
        raise ValueError(
            f"num_prototypes ({num_prototypes}) must be at least 1, and with buffer_tokens "
            f"({buffer_tokens}) at most MemoryLayout.long_term ({layout.long_term})"
        )


def _condense(memory: KeyValueMemory, num_prototypes: int, kept: int, newest: int) -> Condensed:
    """Rank the tokens of every bucket by usage, and make prototypes of the most used."""
    layout = memory.layout
    selection, usage, life = usage_record(memory)
    usage = jnp.where(valid_tokens(memory)[None], usage / life, -jnp.inf)
    survivors = jnp.argsort(usage[:, :, : layout.long_term], axis=-1, descending=True)
    part = slice(layout.temporary_start, layout.num_tokens - newest)
    key, shrinkage = memory.key[:, :, part], memory.shrinkage[:, :, part]
    chosen = largest_places(usage[:, :, part], min(num_prototypes, key.shape[2]))
    pick = jax.vmap(jax.vmap(lambda tokens, index: tokens[index]))
    prototype_key, prototype_selection = pick(key, chosen), pick(selection[:, :, part], chosen)
    scores = similarity(key, shrinkage, prototype_key, prototype_selection)
    affinity = jax.nn.softmax(scores, axis=-1)
    return Condensed(
        survivors=survivors[:, :, :kept],
        key=prototype_key,
        selection=prototype_selection,
        shrinkage=_average(affinity, shrinkage[..., None])[..., 0],
        affinity=affinity,
    )


def _rewrite(
    memory: KeyValueMemory, place: Placement, condensed: Condensed, bucket_of: Int[Array, " k"]
) -> KeyValueMemory:
    """Move survivors, prototypes and newest frames to their positions in every array."""
    selection, usage, life = usage_record(memory)
    every_bucket = jnp.arange(place.full.shape[0])
    rewrite = partial(_rewrite_tokens, layout=memory.layout, place=place, condensed=condensed)

    def average(slot: Int[Array, ""], value: Float[Array, "b k n cv"]) -> Float[Array, "b p cv"]:
        """Average the candidates' values for each of an object's prototypes."""
        weight = condensed.affinity[:, bucket_of[slot]]
        start = memory.layout.temporary_start
        return _average(weight, in_place.get(value, slot, start, weight.shape[-1]))

    def copy(prototypes: Float[Array, "b u p *c"]) -> Callable[[Array, Array], Array]:
        """Return a function that returns the prototypes of a bucket unchanged."""
        return lambda bucket, tokens: prototypes[:, bucket]

    unused = jnp.zeros_like(condensed.shrinkage)
    return memory.replace(
        key=rewrite(memory.key, copy(condensed.key), every_bucket),
        shrinkage=rewrite(memory.shrinkage, copy(condensed.shrinkage), every_bucket),
        selection=rewrite(selection, copy(condensed.selection), every_bucket),
        value=rewrite(memory.value, average, bucket_of),
        usage=rewrite(usage, copy(unused), every_bucket),
        life=rewrite(life, copy(unused + INITIAL_LIFE), every_bucket),
    )


def _rewrite_tokens(
    tokens: Float[Array, "b s n *c"],
    prototypes: Callable[[Array, Array], Float[Array, "b p *c"]],
    bucket_of: Int[Array, " s"],
    layout: MemoryLayout,
    place: Placement,
    condensed: Condensed,
) -> Float[Array, "b s n *c"]:
    """Consolidate the tokens of every slot; `prototypes(slot, tokens)` returns the new ones."""

    def read(slot: Int[Array, ""], tokens: Array) -> tuple[Array, Array]:
        """Return the new long-term tokens of a slot, and its newest frames."""
        bucket = bucket_of[slot]
        made = prototypes(slot, tokens)

        def parts(pick: Callable[[Array], Array]) -> tuple[Array, Array]:
            """Return long-term tokens, after `pick`, and the newest frames."""
            long_term = in_place.get(tokens, slot, 0, layout.long_term)
            newest = in_place.get(tokens, slot, layout.num_tokens - place.newest, place.newest)
            return pick(long_term), newest

        long_term, newest = lax.cond(
            place.overflow[bucket],
            lambda: parts(partial(_to_front, order=condensed.survivors[:, bucket])),
            lambda: parts(lambda long_term: long_term),
        )
        long_term = lax.dynamic_update_slice_in_dim(
            long_term, made.astype(long_term.dtype), place.held[bucket], axis=1
        )
        return long_term, newest

    def write(tokens: Array, slot: Int[Array, ""], parts: tuple[Array, ...]) -> Array:
        """Write both parts to the slot."""
        long_term, newest = parts
        tokens = in_place.put(tokens, slot, 0, long_term)
        return in_place.put(tokens, slot, layout.temporary_start, newest)

    chosen = place.full[jnp.maximum(bucket_of, 0)] & (bucket_of >= 0)
    return in_place.update_slots(tokens, chosen, read, write)


def _to_front(
    tokens: Float[Array, "b n *c"], order: Int[Array, "b kept"]
) -> Float[Array, "b n *c"]:
    """Move the tokens of the given indices to the front."""
    picked = jax.vmap(lambda tokens, order: tokens[order])(tokens, order)
    return jnp.concatenate([picked, tokens[:, order.shape[1] :]], axis=1)


def _average(
    weight: Float[Array, "*batch p n"], tokens: Float[Array, "*batch n c"]
) -> Float[Array, "*batch p c"]:
    """Return weighted sums of tokens in float32."""
    return jnp.einsum(
        "...pn,...nc->...pc",
        weight,
        widen(tokens),
        precision=lax.Precision.HIGHEST,
    )
