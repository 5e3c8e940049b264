"""Object memory and sensory memory: the state of each object besides keys and values.

Object memory (paper section 3.3; Cutie's term) is the running sum of the object summaries over
memory frames: for each query, the features summed over pixels and, as the last channel, the summed
weight. Sensory memory is a feature map that every frame may update.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float

# Keeps the division defined for queries without any pixel.
AREA_EPSILON = 1e-4


def init_object_memory(
    batch: int, objects: int, queries: int, channels: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "b k q s"]:
    """Return an object memory of zero sums."""
    return jnp.zeros((batch, objects, queries, channels + 1), dtype)


def init_sensory_memory(
    batch: int, objects: int, height: int, width: int, channels: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "b k h w c"]:
    """Return the sensory memory of new objects: zeros at stride 16."""
    return jnp.zeros((batch, objects, height, width, channels), dtype)


def add_summaries(
    object_memory: Float[Array, "b k q s"],
    summaries: Float[Array, "b k q s"],
    active: Bool[Array, " k"] | None = None,
) -> Float[Array, "b k q s"]:
    """Add a memory frame's summaries to the sums of the active objects (None: of all)."""
    if active is None:
        return object_memory + summaries
    return object_memory + jnp.where(active[None, :, None, None], summaries, 0.0)


def object_values(object_memory: Float[Array, "b k q s"]) -> Float[Array, "b k q s-1"]:
    """Return the mean feature per object query in float32: summed features over summed weight."""
    sums, area = object_memory[..., :-1], object_memory[..., -1:]
    return sums / (area + AREA_EPSILON)


def clear_objects(
    memory: Float[Array, "b k *rest"], objects: Bool[Array, " k"]
) -> Float[Array, "b k *rest"]:
    """Reset object or sensory memory of the given objects to zero."""
    mask = objects.reshape(1, -1, *(1 for _ in memory.shape[2:]))
    return jnp.where(mask, jnp.zeros((), memory.dtype), memory)
