"""Working memory: permanent frames, and temporary frames in a ring buffer.

A write only touches the frame's window, so under `jit` with a donated memory it is in place.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s3_jax.memory.state import INITIAL_LIFE, KeyValueMemory
from s3_jax.ops import in_place


def write_frame(
    memory: KeyValueMemory,
    key: Float[Array, "b hw ck"],
    shrinkage: Float[Array, "b hw"],
    selection: Float[Array, "b hw ck"] | None,
    value: Float[Array, "b k hw cv"],
    bucket_of: Int[Array, " k"],
    active: Bool[Array, " u"],
    permanent: bool | Bool[Array, ""] = False,
    evicted: Int[Array, " u"] | None = None,
) -> KeyValueMemory:
    """Store a frame in every active bucket.

    A bucket's first frame becomes permanent, and so do later ones if `permanent` is set. Others are
    temporary. Without long-term memory, a new temporary frame replaces another one once all slots
    are taken (if there are no slots, nothing is stored). With long-term memory, `consolidate` must
    follow every write to make room. New temporary tokens have usage 0 and life 1e-7.

    The host must `grow` the memory before the permanent slots run out; without a free slot, a
    permanent frame is stored as a temporary one.

    Args:
      memory: a memory with u buckets and k objects.
      key: keys of the frame's h*w positions.
      shrinkage: their shrinkage.
      selection: their selection; only used by long-term memory, may be None without it.
      value: values of every object; cast to the dtype of the memory's values.
      bucket_of: bucket slot of every object slot; -1 for padding, which is not written.
      active: buckets that store the frame.
      permanent: True to keep the frame forever.
      evicted: the temporary slot whose frame is replaced once all are taken; None for the oldest.

    Raises:
      ValueError: selection is None and the memory has a long-term part.
    """
    frame = memory.layout.tokens_per_frame
    start, kept, replaced = _places(memory, active, permanent, evicted)
    stored = kept | replaced
    of_object = jnp.maximum(bucket_of, 0)
    memory = memory.replace(
        key=_write(memory.key, key[:, None], start, stored),
        shrinkage=_write(memory.shrinkage, shrinkage[:, None], start, stored),
        value=_write(memory.value, value, start[of_object], stored[of_object] & (bucket_of >= 0)),
        permanent_frames=memory.permanent_frames + kept,
        temporary_frames=memory.temporary_frames + replaced,
    )
    if memory.selection is None or memory.usage is None or memory.life is None:
        return memory
    if selection is None:
        raise ValueError("selection is None, but a memory with a long-term part needs it")
    counters = jnp.zeros((key.shape[0], 1, frame), memory.usage.dtype)
    return memory.replace(
        selection=_write(memory.selection, selection[:, None], start, stored),
        usage=_write(memory.usage, counters, start, stored),
        life=_write(memory.life, counters + INITIAL_LIFE, start, stored),
    )


def _places(
    memory: KeyValueMemory,
    active: Bool[Array, " u"],
    permanent: bool | Bool[Array, ""],
    evicted: Int[Array, " u"] | None,
) -> tuple[Int[Array, " u"], Bool[Array, " u"], Bool[Array, " u"]]:
    """Return where each bucket stores the new frame.

    The results are the index of the window's first token, True if the frame becomes permanent, and
    True if it becomes temporary.
    """
    layout = memory.layout
    first = memory.permanent_frames == 0
    kept = active & (first | permanent) & (memory.permanent_frames < layout.permanent)
    replaced = active & ~kept & (layout.temporary > 0)
    slot = memory.temporary_frames % max(layout.temporary, 1)
    if evicted is not None:
        full = memory.temporary_frames >= layout.temporary
        slot = jnp.where(full, evicted, slot).astype(jnp.int32)
    start = jnp.where(
        kept,
        layout.permanent_start + memory.permanent_frames * layout.tokens_per_frame,
        layout.temporary_start + slot * layout.tokens_per_frame,
    )
    return start, kept, replaced


def _write(
    tokens: Float[Array, "b s n *c"],
    frame: Float[Array, "b #s hw *c"],
    start: Int[Array, " s"],
    stored: Bool[Array, " s"],
) -> Float[Array, "b s n *c"]:
    """Write a frame at index `start` of the token axis of every slot that stores it."""

    def write_slot(slot: Int[Array, ""], tokens: Array) -> Array:
        """Write the frame to one slot."""
        shared = frame.shape[1] == 1
        window = in_place.get(frame, jnp.int32(0) if shared else slot, 0, frame.shape[2])
        return in_place.put(tokens, slot, start[slot], window)

    return in_place.put_in_slots(tokens, stored, write_slot)
