"""The key/value memory as one frozen pytree of fixed capacity.

Objects that first appeared in the same frame form a *bucket*: they share keys and usage, and each
has its own values. All tokens of a bucket are on one axis, so reading never concatenates:

    | long-term: L tokens | permanent: P frames | temporary: T frames |

Permanent and temporary frames together are the working memory. A frame is `tokens_per_frame`
consecutive tokens, the h*w positions at stride 16 in row-major order. Three counters per bucket
tell which tokens are valid; tokens beyond them are stale and never read.
"""

import dataclasses
from typing import no_type_check

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Shaped

from s3_jax.ops.precision import wide_type

INITIAL_LIFE = 1e-7


@dataclasses.dataclass(frozen=True)
class MemoryLayout:
    """Capacities of a memory; two memories of equal layout share compiled programs.

    tokens_per_frame: h*w, positions of a frame at stride 16.
    permanent: frames kept forever, at least 1 (every bucket's first frame is one).
    temporary: frames that are replaced (first in, first out) or consolidated; 0 for none.
    long_term: tokens of long-term memory; 0 disables it, and usage counting with it.

    Raises:
      ValueError: a capacity is too small.
    """

    tokens_per_frame: int
    permanent: int
    temporary: int
    long_term: int = 0

    def __post_init__(self) -> None:
        smallest = {"tokens_per_frame": 1, "permanent": 1, "temporary": 0, "long_term": 0}
        if self.long_term:
            smallest["temporary"] = 1
        for name, least in smallest.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"MemoryLayout.{name} is {getattr(self, name)}, but must be at least {least}"
                )

    @property
    def permanent_start(self) -> int:
        """Index of the first permanent token."""
        return self.long_term

    @property
    def temporary_start(self) -> int:
        """Index of the first temporary token."""
        return self.long_term + self.permanent * self.tokens_per_frame

    @property
    def num_tokens(self) -> int:
        """Length n of the token axis."""
        return self.temporary_start + self.temporary * self.tokens_per_frame


# Not type-checked, because JAX also rebuilds pytrees around non-arrays (shapes, batched axes).
@no_type_check
class KeyValueMemory(flax.struct.PyTreeNode):
    """Long-term and working memory of all objects.

    b is the batch (1, or 2 with flip augmentation), u bucket slots, k object slots, n tokens in the
    order given above. Keys are float32, values have the compute dtype.

    selection, usage and life are only used by consolidation, and are None without long-term memory.
    usage is the affinity a token received in all reads so far, life the number of reads it took
    part in (starting at 1e-7); neither is counted for permanent tokens.

    long_term_tokens, permanent_frames and temporary_frames count a bucket's content. Without
    long-term memory, temporary_frames counts all frames ever written; the latest are kept, frame i
    in slot i modulo the capacity.

    notes: a memory policy's own arrays, with a row per bucket; zeros while the bucket is empty.
    """

    key: Float[Array, "b u n ck"]
    shrinkage: Float[Array, "b u n"]
    selection: Float[Array, "b u n ck"] | None
    value: Float[Array, "b k n cv"]
    usage: Float[Array, "b u n"] | None
    life: Float[Array, "b u n"] | None
    long_term_tokens: Int[Array, " u"]
    permanent_frames: Int[Array, " u"]
    temporary_frames: Int[Array, " u"]
    notes: dict[str, Shaped[Array, "u *rest"]]
    layout: MemoryLayout = flax.struct.field(pytree_node=False)


def init(
    layout: MemoryLayout,
    batch: int,
    buckets: int,
    objects: int,
    key_dim: int,
    value_dim: int,
    dtype: DTypeLike = jnp.float32,
    notes: dict[str, Array] | None = None,
) -> KeyValueMemory:
    """Return an empty memory; `dtype` is that of the values (float32, bfloat16 or float64)."""
    tokens, wide = (batch, buckets, layout.num_tokens), wide_type(dtype)
    return KeyValueMemory(
        key=jnp.zeros((*tokens, key_dim), wide),
        shrinkage=jnp.zeros(tokens, wide),
        selection=jnp.zeros((*tokens, key_dim), wide) if layout.long_term else None,
        value=jnp.zeros((batch, objects, layout.num_tokens, value_dim), dtype),
        usage=jnp.zeros(tokens, wide) if layout.long_term else None,
        life=jnp.full(tokens, INITIAL_LIFE, wide) if layout.long_term else None,
        long_term_tokens=jnp.zeros(buckets, jnp.int32),
        permanent_frames=jnp.zeros(buckets, jnp.int32),
        temporary_frames=jnp.zeros(buckets, jnp.int32),
        notes=notes or {},
        layout=layout,
    )


def usage_record(
    memory: KeyValueMemory,
) -> tuple[Float[Array, "b u n ck"], Float[Array, "b u n"], Float[Array, "b u n"]]:
    """Return selection, usage and life of a memory with a long-term part.

    Raises:
      ValueError: the memory has no long-term part.
    """
    if memory.selection is None or memory.usage is None or memory.life is None:
        raise ValueError("MemoryLayout.long_term is 0; consolidation needs at least 1")
    return memory.selection, memory.usage, memory.life


def held_temporary_frames(memory: KeyValueMemory) -> Int[Array, " u"]:
    """Return the number of temporary frames that each bucket holds."""
    return jnp.minimum(memory.temporary_frames, memory.layout.temporary)


def valid_tokens(memory: KeyValueMemory) -> Bool[Array, "u n"]:
    """Return True for tokens that may be read."""
    layout, frame = memory.layout, memory.layout.tokens_per_frame

    def part(capacity: int, held: Int[Array, " u"]) -> Bool[Array, "u part"]:
        """Return True for the first `held` of a part's tokens, per bucket."""
        return jnp.arange(capacity)[None, :] < held[:, None]

    return jnp.concatenate(
        [
            part(layout.long_term, memory.long_term_tokens),
            part(layout.permanent * frame, memory.permanent_frames * frame),
            part(layout.temporary * frame, held_temporary_frames(memory) * frame),
        ],
        axis=1,
    )


def clear_buckets(memory: KeyValueMemory, buckets: Bool[Array, " u"]) -> KeyValueMemory:
    """Empty the given buckets, so their slots (and their objects' slots) can be reused."""

    def clear(rows: Shaped[Array, "u *rest"]) -> Shaped[Array, "u *rest"]:
        """Set the rows of the given buckets to zero."""
        return jnp.where(buckets.reshape(-1, *(1,) * (rows.ndim - 1)), 0, rows).astype(rows.dtype)

    return memory.replace(
        long_term_tokens=clear(memory.long_term_tokens),
        permanent_frames=clear(memory.permanent_frames),
        temporary_frames=clear(memory.temporary_frames),
        notes=jax.tree.map(clear, memory.notes),
    )


def grow(
    memory: KeyValueMemory,
    *,
    permanent: int | None = None,
    buckets: int | None = None,
    objects: int | None = None,
) -> KeyValueMemory:
    """Return the same content with capacity for more permanent frames, buckets or objects.

    Call it on the host between steps. Shapes change, so programs are recompiled.

    Raises:
      ValueError: a requested capacity is smaller than the current one.
    """
    u, k, old = memory.key.shape[1], memory.value.shape[1], memory.layout
    permanent = _capacity("permanent", permanent, old.permanent)
    buckets = _capacity("buckets", buckets, u)
    objects = _capacity("objects", objects, k)
    extra_tokens = (permanent - old.permanent) * old.tokens_per_frame

    def pad(slots: int, tokens: Array | None) -> Array | None:
        """Add slots, and room for permanent frames."""
        if tokens is None:
            return None
        tokens = _pad(tokens, axis=1, at=tokens.shape[1], extra=slots - tokens.shape[1])
        return _pad(tokens, axis=2, at=old.temporary_start, extra=extra_tokens)

    def pad_rows(rows: Shaped[Array, "u *rest"]) -> Shaped[Array, "w *rest"]:
        """Add rows for new buckets."""
        return _pad(rows, axis=0, at=u, extra=buckets - u)

    return memory.replace(
        key=pad(buckets, memory.key),
        shrinkage=pad(buckets, memory.shrinkage),
        selection=pad(buckets, memory.selection),
        value=pad(objects, memory.value),
        usage=pad(buckets, memory.usage),
        life=pad(buckets, memory.life),
        long_term_tokens=pad_rows(memory.long_term_tokens),
        permanent_frames=pad_rows(memory.permanent_frames),
        temporary_frames=pad_rows(memory.temporary_frames),
        notes=jax.tree.map(pad_rows, memory.notes),
        layout=dataclasses.replace(old, permanent=permanent),
    )


def _capacity(name: str, wanted: int | None, present: int) -> int:
    if wanted is None:
        return present
    if wanted < present:
        raise ValueError(f"{name} is {wanted}, but a memory of {present} can only grow")
    return wanted


def _pad(x: Array, *, axis: int, at: int, extra: int) -> Array:
    """Insert `extra` zeros into `x` at an index of an axis."""
    if extra == 0:
        return x
    before, after = jnp.split(x, [at], axis=axis)
    room = jnp.zeros((*x.shape[:axis], extra, *x.shape[axis + 1 :]), x.dtype)
    return jnp.concatenate([before, room, after], axis=axis)
