"""Pictures of the network's output on a training clip: masks, and attention of object queries.

As at the start of a video, the mask of the first frame is written to memory and the last frame is
segmented with it, using the parameters being trained.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, UInt8

from s3_jax.config import ModelConfig
from s3_jax.data.pipeline import Batch
from s3_jax.media.overlay import draw_overlay
from s3_jax.memory.object_memory import init_object_memory, init_sensory_memory
from s3_jax.memory.read import read_one_frame
from s3_jax.models.object_attention import offered_similarity
from s3_jax.models.s3 import S3
from s3_jax.propagation.frame import Objects, Variables, WatchedNetwork, remember, segment
from s3_jax.propagation.state import STRIDE
from s3_jax.training.clip import active_objects, object_masks

Picture = UInt8[np.ndarray, "h w 3"]


class Look(NamedTuple):
    """Output of the network on the last frame of a clip.

    prob: probabilities, background first.
    attention: similarity of each pixel to each of the q queries in the last block, at stride 16,
      scaled to [0, 1], with 0 where attention is masked; None if the network's attention does not
      expose it.
    """

    prob: Float[Array, "k+1 H W"]
    attention: Float[Array, "k q h w"] | None


def draw_clip(model: S3, variables: Variables, batch: Batch, slots: int) -> dict[str, np.ndarray]:
    """Return pictures of the batch's first clip, by name.

    Args:
      slots: number of object slots that the network is trained with.
    """
    frames, masks = batch["frames"][0][[0, -1]], batch["masks"][0][[0, -1]]
    count = int(batch["num_objects"][0])
    look = jax.device_get(
        look_at(model.clone(axis_name=None), slots, variables, frames, masks[0], np.int32(count))
    )
    truth = np.where(masks[1] <= count, masks[1], 0)
    pictures = {
        "input": np.concatenate([draw_overlay(frames[0], masks[0]), frames[1]], axis=1),
        "prediction": draw_overlay(frames[1], look.prob.argmax(axis=0)),
        "truth": draw_overlay(frames[1], truth),
    }
    if look.attention is not None:
        pictures["query_attention"] = _heat_maps(frames[1], look.attention[:count])
    return pictures


@functools.partial(jax.jit, static_argnums=(0, 1))
def look_at(
    model: S3,
    slots: int,
    variables: Variables,
    frames: UInt8[Array, "2 H W 3"],
    first_mask: Integer[Array, "H W"],
    num_objects: Integer[Array, ""],
) -> Look:
    """Segment the second frame from the memory of the first."""
    network = WatchedNetwork(model, variables)
    images = frames.astype(jnp.float32) / 255
    features = network(S3.encode_image, images)
    first, last = (jax.tree.map(lambda x, i=i: x[i : i + 1], features) for i in (0, 1))
    objects = _new_objects(model.config, object_masks(first_mask[None], slots))
    objects, value = remember(network, images[:1], first.pix_feat, objects, lambda value: value)
    segmentation, _ = segment(
        network,
        last,
        objects,
        lambda query: (read_one_frame(first.key, value, query), value),
        active_objects(num_objects[None], slots),
    )
    attention = _attention(model, network.seen, slots, last.pix_feat.shape[1:3])
    return Look(segmentation.prob[0], attention)


def _new_objects(config: ModelConfig, masks: Float[Array, "1 k H W"]) -> Objects:
    """Return objects with initial memory and the given masks."""
    (b, k), (h, w) = masks.shape[:2], (n // STRIDE for n in masks.shape[2:])
    return Objects(
        init_sensory_memory(b, k, h, w, config.width),
        init_object_memory(b, k, config.num_queries, config.width),
        masks,
    )


def _attention(
    model: S3, seen: dict[str, Any], slots: int, size: tuple[int, int]
) -> Float[Array, "k q h w"] | None:
    blocks = seen.get("object_transformer", {})
    similarity = offered_similarity(blocks.get(f"blocks_{model.config.num_blocks - 1}", {}))
    if similarity is None:
        return None
    best = jnp.max(similarity, axis=1)  # over heads: objects, queries, pixels
    low = jnp.min(jnp.where(jnp.isinf(best), jnp.inf, best), axis=-1, keepdims=True)
    high = jnp.max(best, axis=-1, keepdims=True)
    scaled = jnp.clip((best - low) / (high - low + 1e-6), 0, 1)
    return scaled.reshape(slots, -1, *size)


def _heat_maps(frame: Picture, attention: Float[np.ndarray, "k q h16 w16"]) -> np.ndarray:
    """Draw a grid of heat maps, one row per object and one column per query."""
    height, width = frame.shape[:2]
    rows, columns = (
        (np.arange(new) * old) // new
        for new, old in zip((height, width), attention.shape[2:], strict=True)
    )
    grey = frame.mean(axis=-1, keepdims=True) * 0.6
    cells = []
    for heat in attention[:, :, rows][..., columns].reshape(-1, height, width, 1):
        colour = np.array([255.0, 160.0, 0.0]).reshape(1, 1, 3)
        cells.append((grey * (1 - heat) + colour * heat).astype(np.uint8))
    k, q = attention.shape[:2]
    grid = np.stack(cells).reshape(k, q, height, width, 3)
    return grid.transpose(0, 2, 1, 3, 4).reshape(k * height, q * width, 3)
