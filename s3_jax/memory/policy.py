"""Memory policies: which frames a video's memory keeps and evicts, and how it is read.

A policy is a subclass of `MemoryPolicy`: pure functions on a `KeyValueMemory`. `PropagationConfig`
names one of `POLICIES`, or any other as `package.module:Name` (docs/extend.md has a complete
example).
"""

import dataclasses
import functools
from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int

from s3_jax import references
from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError
from s3_jax.memory import long_term, read, working
from s3_jax.memory.state import KeyValueMemory, MemoryLayout
from s3_jax.ops.backend import backend

POLICIES = {
    "first_in_first_out": "s3_jax.memory.policy:FirstInFirstOut",
    "long_term": "s3_jax.memory.policy:LongTerm",
}


class MemoryFrame(NamedTuple):
    """A frame to be stored; its n tokens are the positions at stride 16.

    mask: soft masks of the objects, at the padded size.
    bucket_of: bucket of every object slot, -1 for empty ones.
    active: buckets that hold an object.
    permanent: True if the caller wants this frame to be kept forever.
    """

    key: Float[Array, "b n ck"]
    shrinkage: Float[Array, "b n"]
    selection: Float[Array, "b n ck"]
    value: Float[Array, "b k n cv"]
    mask: Float[Array, "b k H W"]
    bucket_of: Int[Array, " k"]
    active: Bool[Array, " u"]
    permanent: bool | Bool[Array, ""]


class MemoryQuery(NamedTuple):
    """The m positions at which the memory is read."""

    key: Float[Array, "b m ck"]
    selection: Float[Array, "b m ck"]
    bucket_of: Int[Array, " k"]


@dataclasses.dataclass(frozen=True)
class MemoryPolicy:
    """Base class of memory policies; a subclass defines at least `layout` and `admit`.

    All methods are pure and preserve the shapes and dtypes of their arguments.
    """

    config: PropagationConfig

    def layout(self, tokens_per_frame: int) -> MemoryLayout:
        """Return the capacities of the memory."""
        raise NotImplementedError(f"{type(self).__name__} does not define layout")

    def notes(self, buckets: int) -> dict[str, Array]:
        """Return the policy's own arrays for an empty memory: zeros, one row per bucket."""
        del buckets
        return {}

    def admit(self, memory: KeyValueMemory, frame: MemoryFrame) -> KeyValueMemory:
        """Return the memory updated with a memory frame."""
        raise NotImplementedError(f"{type(self).__name__} does not define admit")

    def read(
        self, memory: KeyValueMemory, query: MemoryQuery
    ) -> tuple[Float[Array, "b k m cv"], KeyValueMemory]:
        """Return every object's readout, and the memory with its usage updated.

        The default is a softmax average over the `top_k` most similar tokens (`memory.read`).
        """
        return read.read(
            memory,
            query.key,
            query.selection,
            query.bucket_of,
            self.config.top_k,
            dense=backend() == "tpu",
        )


class FirstInFirstOut(MemoryPolicy):
    """Policy that keeps each bucket's first frame forever, and the newest of the others.

    It keeps `max_mem_frames - 1` of the others. A subclass can override `evict` to keep different
    frames.
    """

    def layout(self, tokens_per_frame: int) -> MemoryLayout:
        """Return capacity for one permanent frame (the caller adds more) and temporary frames."""
        return MemoryLayout(tokens_per_frame, 1, self.config.max_mem_frames - 1)

    def admit(self, memory: KeyValueMemory, frame: MemoryFrame) -> KeyValueMemory:
        """Return the memory with the frame stored in every active bucket."""
        return working.write_frame(
            memory,
            frame.key,
            frame.shrinkage,
            frame.selection,
            frame.value,
            frame.bucket_of,
            frame.active,
            frame.permanent,
            self.evict(memory, frame),
        )

    def evict(self, memory: KeyValueMemory, frame: MemoryFrame) -> Int[Array, " u"]:
        """Return the temporary frame that this frame replaces in each full bucket."""
        del frame
        return memory.temporary_frames % max(memory.layout.temporary, 1)


class LongTerm(FirstInFirstOut):
    """Policy that condenses full working memory into prototypes and keeps the most used of them.

    See `memory.long_term` and the `lt_` settings of `PropagationConfig`.
    """

    def layout(self, tokens_per_frame: int) -> MemoryLayout:
        """Return capacity for working memory and prototypes."""
        config = self.config
        return MemoryLayout(tokens_per_frame, 1, config.lt_max_frames - 1, config.lt_max_tokens)

    def admit(self, memory: KeyValueMemory, frame: MemoryFrame) -> KeyValueMemory:
        """Return the memory with the frame stored, and condensed if it became full."""
        config = self.config
        return long_term.consolidate(
            super().admit(memory, frame),
            config.lt_prototypes,
            config.lt_min_frames,
            config.lt_buffer_tokens,
            frame.bucket_of,
        )


@functools.lru_cache(maxsize=64)
def policy_of(config: PropagationConfig) -> MemoryPolicy:
    """Return the policy that a configuration names.

    Raises:
      InputError: there is no such policy, or the name does not refer to a policy.
    """
    name = config.memory_policy
    if name == "auto":
        name = "long_term" if config.long_term else "first_in_first_out"
    policy = references.load(name, POLICIES, "memory_policy")
    if not (isinstance(policy, type) and issubclass(policy, MemoryPolicy)):
        raise InputError(
            f"memory_policy {name} is not a subclass of s3_jax.memory.policy.MemoryPolicy"
        )
    return policy(config)
