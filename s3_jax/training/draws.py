"""Random choices of a training step, separate from the step that uses them.

They depend on the run's key and the number of the step. Choices for an item also depend on its row
in the global batch, but not on how rows are distributed over replicas, hosts and micro-batches.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from s3_jax.ops.top_k import largest_places
from s3_jax.training.step_config import ClipConfig


class Draws(NamedTuple):
    """Random choices for a clip of f + 1 frames.

    deep_update: for all frames but the last, whether sensory memory is updated from the frame's
      masks; one choice for the whole batch, so that the update can be skipped.
    references: for all frames but the first, the r frames whose memory is read; entries that are
      not earlier than the frame are ignored.
    points: random draws for the points of every frame and pair p of losses (see `losses`).
    """

    deep_update: Bool[Array, "f"]
    references: Int[Array, "f b r"]
    points: Any


def draw(
    key: Key[Array, ""],
    rows: Int[Array, "b"],
    frames: int,
    pairs: int,
    config: ClipConfig,
) -> Draws:
    """Return the random choices of one step.

    Args:
      key: the step's key, the same on all replicas.
      rows: rows of the items in the global batch.
      frames: number of frames of a clip.
      pairs: number of loss pairs per frame.
    """
    shared, own = jax.random.split(key)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(own, rows)
    reference_keys, point_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    references = jax.vmap(lambda key: _references(key, frames, config.num_ref_frames), 0, 1)
    points = jax.vmap(lambda key: jax.random.split(key, (frames - 1, pairs)), 0, 1)
    return Draws(
        deep_update=deep_updates(shared, frames, config.deep_update_prob),
        references=references(reference_keys),
        points=points(point_keys),
    )


def deep_updates(key: Key[Array, ""], frames: int, probability: float) -> Bool[Array, "f"]:
    """Draw deep updates of all frames but the last: always for the first, at random for others."""
    return jax.random.bernoulli(key, probability, (frames - 1,)).at[0].set(True)


def _references(key: Key[Array, ""], frames: int, limit: int) -> Int[Array, "f r"]:
    """Return up to `limit` distinct earlier frames for each frame after the first."""
    others = jnp.arange(frames - 1)
    score = jax.random.uniform(key, (frames - 1, frames - 1))
    earlier = others[None, :] <= others[:, None]
    return largest_places(jnp.where(earlier, score, -1.0), min(limit, frames - 1))
