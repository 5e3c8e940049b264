"""Forward pass of a training clip (paper section 4.1; docs/propagation.md, section 5.2).

    all frames -> encode_image at once
    then frame by frame:  previous frame and its mask -> encode_mask -> memory
                          memory -> this frame's mask, which the next frame starts from

Gradients flow through the masks from frame to frame. The mask of the first frame is given, and the
last frame is only segmented. The time axis comes first in arrays (`t` for all frames, or `f` for
the predicted frames after the first), so that the scan slices them without moving data.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Integer, UInt8

from s3_jax.config import ModelConfig
from s3_jax.memory.object_memory import init_object_memory, init_sensory_memory
from s3_jax.memory.read import read_frames
from s3_jax.models.key_projection import Key
from s3_jax.models.s3 import S3, ImageFeatures
from s3_jax.ops.in_place import vary_like
from s3_jax.ops.selection import take_rows
from s3_jax.propagation import frame as trip
from s3_jax.propagation.frame import Network, Objects, Variables
from s3_jax.training.draws import Draws
from s3_jax.training.rematerialization import rematerialize
from s3_jax.training.step_config import ClipConfig


class ClipBatch(NamedTuple):
    """Batch of annotated clips.

    frames: RGB, 0 to 255; height and width are multiples of the network's `size_multiple`.
    masks: object number at every pixel, 0 for background; numbers above an item's `num_objects`
      belong to no class.
    num_objects: number of objects per item, at most `ClipConfig.num_objects`.
    """

    frames: UInt8[Array, "b t H W 3"]
    masks: Integer[Array, "b t H W"]
    num_objects: Integer[Array, "b"]


class ClipPrediction(NamedTuple):
    """Logits for the frames after the first, background first, float32.

    sensory_logits: auxiliary logits from the sensory memory before each frame, at stride 16.
    query_logits: auxiliary logits from every level l of the object transformer, at stride 16.
    """

    logits: Float[Array, "f b k+1 H W"]
    sensory_logits: Float[Array, "f b k+1 h w"]
    query_logits: Float[Array, "f b k+1 l h w"]


class ClipMemory(NamedTuple):
    """Memory carried through a clip; `value` has one slot for every frame but the last."""

    value: Float[Array, "b k f n c"]
    objects: Objects


class FrameKeys(NamedTuple):
    """Key and shrinkage of all frames but the last, n tokens each."""

    key: Float[Array, "b f n ck"]
    shrinkage: Float[Array, "b f n"]


class PreviousFrame(NamedTuple):
    """Inputs for memorizing the previous frame.

    deep: True if the encoded mask updates sensory memory.
    """

    number: Int[Array, ""]
    image: Float[Array, "b H W 3"]
    pix_feat: Float[Array, "b h w c"]
    deep: Bool[Array, ""]


class CurrentFrame(NamedTuple):
    """Inputs for segmenting the current frame.

    references: numbers of the frames whose memory is read.
    last: True for the last frame of the clip.
    """

    number: Int[Array, ""]
    features: ImageFeatures
    references: Int[Array, "b r"]
    last: Bool[Array, ""]


def run_clip(
    model: S3, variables: Variables, config: ClipConfig, batch: ClipBatch, draws: Draws
) -> tuple[ClipPrediction, Variables]:
    """Return predictions for every frame after the first, and the new BatchNorm statistics.

    Args:
      draws: the clip's random choices; the result is deterministic given them.
    """
    frames = jnp.swapaxes(batch.frames, 0, 1)
    images = frames.astype(jnp.float32) / 255
    count = images.shape[0]
    encode = functools.partial(encode_frames, model, variables, train=not config.freeze_batch_norm)
    features, batch_stats = rematerialize(encode, config.remat_encoder)(images)
    active = active_objects(batch.num_objects, config.num_objects)
    first_mask = object_masks(batch.masks[:, 0], config.num_objects) * active[:, :, None, None]
    number = jnp.arange(count)
    previous = PreviousFrame(number[:-1], images[:-1], features.pix_feat[:-1], draws.deep_update)
    after_first = jax.tree.map(lambda x: x[1:], features)
    current = CurrentFrame(number[1:], after_first, draws.references, number[1:] == count - 1)
    advance = functools.partial(
        _advance,
        Network(model, variables),
        _frame_keys(features.key),
        active,
    )
    start = _empty_memory(model.config, features, first_mask, model.dtype)
    start = jax.tree.map(lambda x: vary_like(x, features.pix_feat), start)
    step = rematerialize(advance, config.remat_frames, in_scan=True)
    _, prediction = lax.scan(step, start, (previous, current))
    return prediction, batch_stats


def encode_frames(
    model: S3, variables: Variables, images: Float[Array, "t b H W 3"], train: bool = True
) -> tuple[ImageFeatures, Variables]:
    """Return the features of all frames (axes t b first), and the new BatchNorm statistics.

    Args:
      images: RGB in [0, 1].
      train: True to normalize with the statistics of all frames together; False to use the running
        statistics, which then do not change.
    """
    t, b = images.shape[:2]
    # With items before frames, items that are sharded over devices stay in place.
    by_item = jnp.swapaxes(images, 0, 1)
    features, state = model.apply(
        variables,
        by_item.reshape(b * t, *images.shape[2:]),
        train=train,
        method=S3.encode_image,
        mutable=["batch_stats"],
    )
    batch_stats = state["batch_stats"] if train else variables["batch_stats"]
    by_frame = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(b, t, *x.shape[1:]), 0, 1), features)
    return by_frame, batch_stats


def object_masks(masks: Integer[Array, "b H W"], num_objects: int) -> Float[Array, "b k H W"]:
    """Return the masks of objects 1 to `num_objects`, with values 0 and 1."""
    numbers = jnp.arange(1, num_objects + 1).reshape(1, -1, 1, 1)
    return (masks[:, None] == numbers).astype(jnp.float32)


def active_objects(num_objects: Integer[Array, "b"], slots: int) -> Float[Array, "b k"]:
    """Return 1 for slots that hold one of the item's objects, and 0 for empty slots."""
    return (jnp.arange(slots)[None] < num_objects[:, None]).astype(jnp.float32)


def _advance(
    network: Network,
    keys: FrameKeys,
    active: Float[Array, "b k"],
    memory: ClipMemory,
    inputs: tuple[PreviousFrame, CurrentFrame],
) -> tuple[ClipMemory, ClipPrediction]:
    """Memorize the previous frame, then segment the current one."""
    previous, current = inputs
    memory = _remember(network, memory, previous)
    return _segment(network, keys, active, memory, current)


def _remember(network: Network, memory: ClipMemory, frame: PreviousFrame) -> ClipMemory:
    def write(value: Float[Array, "b k h w c"]) -> Float[Array, "b k f n c"]:
        """Store the frame's values in its slot."""
        tokens = value.reshape(*value.shape[:2], -1, value.shape[-1])
        return lax.dynamic_update_index_in_dim(memory.value, tokens, frame.number, axis=2)

    objects, value = trip.remember(
        network, frame.image, frame.pix_feat, memory.objects, write, deep=frame.deep
    )
    return ClipMemory(value, objects)


def _segment(
    network: Network,
    keys: FrameKeys,
    active: Float[Array, "b k"],
    memory: ClipMemory,
    frame: CurrentFrame,
) -> tuple[ClipMemory, ClipPrediction]:
    features, objects = frame.features, memory.objects

    def read(query: Key) -> tuple[Float[Array, "b k h w c"], Float[Array, "b k f n c"]]:
        """Read the reference frames, and return the values unchanged."""
        return _read(keys, memory.value, query, frame), memory.value

    result, value = trip.segment(network, features, objects, read, active)
    sensory_logits, query_logits = network(S3.predict_auxiliary, features.pix_feat, objects.sensory,
                                           result.transformed.logits, active)  # fmt: skip
    sensory = trip.update_sensory(network, objects, result, ~frame.last)
    objects = objects._replace(sensory=sensory, last_mask=result.prob[:, 1:])
    prediction = ClipPrediction(result.logits, sensory_logits, query_logits)
    return ClipMemory(value, objects), prediction


def _read(
    keys: FrameKeys, value: Float[Array, "b k f n c"], query: Key, frame: CurrentFrame
) -> Float[Array, "b k h w c"]:
    """Return the readout over all tokens of the frame's reference frames."""
    b, h, w, ck = query.key.shape
    of_object = jax.vmap(take_rows, in_axes=(1, None), out_axes=1)
    readout = read_frames(
        take_rows(keys.key, frame.references),
        take_rows(keys.shrinkage, frame.references),
        of_object(value, frame.references),
        frame.references < frame.number,
        query.key.reshape(b, h * w, ck),
        query.selection.reshape(b, h * w, ck),
    )
    return readout.reshape(*readout.shape[:2], h, w, -1)


def _frame_keys(key: Key) -> FrameKeys:
    t, b, h, w, ck = key.key.shape
    return FrameKeys(
        jnp.swapaxes(key.key[:-1], 0, 1).reshape(b, t - 1, h * w, ck),
        jnp.swapaxes(key.shrinkage[:-1], 0, 1).reshape(b, t - 1, h * w),
    )


def _empty_memory(
    config: ModelConfig,
    features: ImageFeatures,
    first_mask: Float[Array, "b k H W"],
    dtype: jnp.dtype | type,
) -> ClipMemory:
    """Return the memory before the first frame; `dtype` is the one the network computes in."""
    b, k = first_mask.shape[:2]
    t, _, h, w, _ = features.pix_feat.shape
    return ClipMemory(
        value=jnp.zeros((b, k, t - 1, h * w, config.width), dtype),
        objects=Objects(
            sensory=init_sensory_memory(b, k, h, w, config.width),
            object_memory=init_object_memory(b, k, config.num_queries, config.width),
            last_mask=first_mask,
        ),
    )
