"""Memory of a video as one immutable pytree of fixed shapes.

Objects live in slots. The number of slots is rounded up to a few sizes, so that adding, correcting
and deleting objects compiles nothing new until a size is outgrown. Empty slots affect no result.
Objects that first appeared in the same frame form a bucket (see `s3_jax.memory.state`).
"""

import functools
from typing import no_type_check

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from s3_jax.config import ModelConfig, PropagationConfig
from s3_jax.memory import state as key_value
from s3_jax.memory.object_memory import clear_objects, init_object_memory, init_sensory_memory
from s3_jax.memory.policy import policy_of
from s3_jax.memory.state import KeyValueMemory
from s3_jax.ops.precision import wide_type
from s3_jax.propagation.frame import Objects

EMPTY_SLOT = -1
STRIDE = 16


def slot_size(count: int) -> int:
    """Return the number of slots for `count` objects (or buckets): 1, 2, 3, 4, 6, 8, 12, 16, ..."""
    size = 1
    while size < count:
        if size >= 2 and size + size // 2 >= count:
            return size + size // 2
        size *= 2
    return size


# Not type-checked, because JAX also rebuilds pytrees around non-arrays (shapes, batched axes).
@no_type_check
class VideoState(flax.struct.PyTreeNode):
    """Memory of one video after some frames; b is 1, or 2 with flip augmentation.

    memory: keys and values of memory frames.
    sensory: sensory memory, float32.
    object_memory: running sums of object summaries, float32.
    last_mask: soft masks of the last frame at its padded size, float32.
    bucket_of: bucket of every object slot, -1 for empty slots.
    since_memory: number of frames since the last memory frame.
    """

    memory: KeyValueMemory
    sensory: Float[Array, "b k h w c"]
    object_memory: Float[Array, "b k q s"]
    last_mask: Float[Array, "b k H W"]
    bucket_of: Int[Array, " k"]
    since_memory: Int[Array, ""]

    @property
    def objects(self) -> Objects:
        """Memory of the objects apart from keys and values."""
        return Objects(self.sensory, self.object_memory, self.last_mask)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def init_state(
    model: ModelConfig,
    config: PropagationConfig,
    size: tuple[int, int],
    objects: int = 1,
    dtype: jnp.dtype | type = jnp.float32,
) -> VideoState:
    """Return the state before the first frame.

    Args:
      size: height and width of the padded frames.
      objects: number of object slots.
      dtype: type of the memory's values (that of the network's computation).
    """
    height, width = size
    h, w = height // STRIDE, width // STRIDE
    batch = 2 if config.flip else 1
    policy = policy_of(config)
    wide = wide_type(dtype)
    return VideoState(
        memory=key_value.init(
            policy.layout(h * w),
            batch,
            1,
            objects,
            model.key_dim,
            model.width,
            dtype,
            policy.notes(1),
        ),
        sensory=init_sensory_memory(batch, objects, h, w, model.width, wide),
        object_memory=init_object_memory(batch, objects, model.num_queries, model.width, wide),
        last_mask=jnp.zeros((batch, objects, height, width), wide),
        bucket_of=jnp.full((objects,), EMPTY_SLOT, jnp.int32),
        since_memory=jnp.zeros((), jnp.int32),
    )


@functools.partial(jax.jit, static_argnames=("objects", "buckets", "permanent"))
def grow(
    state: VideoState,
    *,
    objects: int | None = None,
    buckets: int | None = None,
    permanent: int | None = None,
) -> VideoState:
    """Return the same content with more slots.

    Shapes change, so steps are compiled again. None leaves a capacity unchanged.

    Raises:
      ValueError: a requested capacity is below the current one.
    """
    k = state.bucket_of.shape[0]
    extra = (objects or k) - k

    def pad(x: Array) -> Array:
        """Add slots to the object axis."""
        return jnp.pad(x, [(0, 0), (0, extra)] + [(0, 0)] * (x.ndim - 2))

    return state.replace(
        memory=key_value.grow(state.memory, objects=objects, buckets=buckets, permanent=permanent),
        sensory=pad(state.sensory),
        object_memory=pad(state.object_memory),
        last_mask=pad(state.last_mask),
        bucket_of=jnp.pad(state.bucket_of, (0, extra), constant_values=EMPTY_SLOT),
    )


@jax.jit
def assign_slots(state: VideoState, new: Bool[Array, " k"], bucket: Int[Array, ""]) -> VideoState:
    """Put new objects into empty slots and one empty bucket.

    Args:
      new: slots of the new objects, whose memories are cleared.
      bucket: number of the bucket that all of them enter.
    """
    return _forget(state, new).replace(bucket_of=jnp.where(new, bucket, state.bucket_of))


@jax.jit
def release_slots(state: VideoState, deleted: Bool[Array, " k"]) -> VideoState:
    """Empty the slots of deleted objects, and buckets without a remaining object."""
    state = _forget(state, deleted)
    bucket_of = jnp.where(deleted, EMPTY_SLOT, state.bucket_of)
    buckets = state.memory.permanent_frames.shape[0]
    used = jnp.any(bucket_of[None, :] == jnp.arange(buckets)[:, None], axis=1)
    return state.replace(memory=key_value.clear_buckets(state.memory, ~used), bucket_of=bucket_of)


def _forget(state: VideoState, slots: Bool[Array, " k"]) -> VideoState:
    """Zero the memories of single objects.

    Their values need no clearing, because values that were written before the object's bucket was
    last emptied are never read.
    """

    return state.replace(
        sensory=clear_objects(state.sensory, slots),
        object_memory=clear_objects(state.object_memory, slots),
        last_mask=clear_objects(state.last_mask, slots),
    )


def active(state: VideoState) -> Bool[Array, " k"]:
    """Return the slots that hold an object."""
    return state.bucket_of >= 0


def remembered(state: VideoState) -> Bool[Array, " k"]:
    """Return the slots whose object is already in a memory frame and can be segmented."""
    seen = state.memory.permanent_frames > 0
    return active(state) & seen[jnp.maximum(state.bucket_of, 0)]


def same_bucket(state: VideoState) -> Float[Array, "k k"] | None:
    """Return 1 where two objects share a bucket; None if there is one bucket slot only."""
    if state.memory.permanent_frames.shape[0] == 1:
        return None
    together = state.bucket_of[:, None] == state.bucket_of[None, :]
    return together.astype(jnp.float32)


def active_buckets(state: VideoState) -> Bool[Array, " u"]:
    """Return the buckets that hold an object."""
    buckets = jnp.arange(state.memory.permanent_frames.shape[0])
    return jnp.any(state.bucket_of[None, :] == buckets[:, None], axis=1)
