"""Workloads for speed measurements: networks with random weights and full memories.

Times depend neither on the weights nor on the content of a video.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from s3_jax.analysis.programs import TrainingTask
from s3_jax.config import ModelConfig, PropagationConfig
from s3_jax.models.variables import variable_shapes
from s3_jax.propagation.geometry import network_geometry
from s3_jax.propagation.state import VideoState, init_state
from s3_jax.training.clip import ClipBatch


def random_variables(model: ModelConfig) -> Any:
    """Return small random numbers in the shapes of the variables."""
    rng = np.random.default_rng(0)

    def draw(leaf: Any) -> Array:
        """Return an array of small random numbers, or of zeros for integers."""
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        scale = max(np.prod(leaf.shape[:-1]), 1) ** -0.5
        return jnp.asarray(rng.standard_normal(leaf.shape, np.float32) * np.float32(scale))

    variables = jax.tree.map(draw, variable_shapes(model))
    variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    return variables


def full_state(
    model: ModelConfig,
    config: PropagationConfig,
    size: tuple[int, int],
    objects: int,
    dtype: str = "float32",
) -> VideoState:
    """Return the state of a video with full memories, as after many frames of `size`."""
    padded = network_geometry(size, model).padded
    state = init_state(model, config, padded, objects, jnp.dtype(dtype).type)
    layout = state.memory.layout
    ones = jnp.ones(1, jnp.int32)
    memory = state.memory.replace(
        long_term_tokens=ones * layout.long_term,
        permanent_frames=ones,
        # With long-term memory, one less than full, because full would trigger consolidation.
        temporary_frames=ones * (layout.temporary - (1 if layout.long_term else 0)),
        key=_noise(state.memory.key.shape),
        shrinkage=1 + jnp.abs(_noise(state.memory.shrinkage.shape)),
        value=_noise(state.memory.value.shape).astype(dtype),
    )
    return state.replace(
        memory=memory,
        bucket_of=jnp.zeros(objects, jnp.int32),
        last_mask=jnp.abs(_noise(state.last_mask.shape)) % 1,
        object_memory=jnp.abs(_noise(state.object_memory.shape)) + 1,
    )


def random_frames(count: int, size: tuple[int, int]) -> np.ndarray:
    """Return frames (count h w 3) of random colours."""
    return np.random.default_rng(2).integers(0, 256, (count, *size, 3), np.uint8)


def random_batch(task: TrainingTask, replicas: int) -> ClipBatch:
    """Return a batch spread over replicas: (replicas rows ...)."""
    rows = task.batch_size // replicas
    masks = (replicas, rows, task.frames, task.crop, task.crop)
    rng = np.random.default_rng(3)
    objects = task.step.clip.num_objects
    return ClipBatch(
        frames=jnp.asarray(rng.integers(0, 256, (*masks, 3), np.uint8)),
        masks=jnp.asarray(rng.integers(0, objects + 1, masks, np.uint8)),
        num_objects=jnp.full((replicas, rows), objects, jnp.int32),
    )


def _noise(shape: tuple[int, ...]) -> Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape, np.float32))
