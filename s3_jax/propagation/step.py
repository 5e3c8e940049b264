"""One frame of a video: the pure functions behind streaming, scanning, batches and export.

`step` handles frames without a mask, `annotate` frames with one. Both take the state and return
the next one with the same shapes and dtypes (docs/propagation.md, sections 1 and 2).

Both can be differentiated in reverse mode with respect to images, masks and parameters, through
either kind of memory. Discrete choices are constants: the memory tokens that are read (top-k),
condensed into prototypes or dropped, the pixel that a discriminative query picks (arg-max), and the
pixels that it may not read (the foreground rule). See `normalize` for pixels at which all given
masks are hard. `scan` and the session take uint8 frames, which have no derivative; `step` takes
images in [0, 1].
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from s3_jax.config import PropagationConfig
from s3_jax.memory.policy import MemoryFrame, MemoryQuery, policy_of
from s3_jax.memory.state import KeyValueMemory
from s3_jax.models.key_projection import Key
from s3_jax.models.masks import EPSILON, aggregate, softmax_over_objects
from s3_jax.models.s3 import S3, ImageFeatures, Segmentation
from s3_jax.ops.in_place import update_if
from s3_jax.propagation import frame
from s3_jax.propagation.frame import Flag, Network, WatchedNetwork
from s3_jax.propagation.state import (
    VideoState,
    active,
    active_buckets,
    remembered,
    same_bucket,
)


class Encoded(NamedTuple):
    """A frame after the image encoder, which needs no memory and can run ahead of time.

    images: the frame, RGB in [0, 1] and padded, and with `PropagationConfig.flip` its mirror image.
    features: features of these images.
    """

    images: Float[Array, "b H W 3"]
    features: ImageFeatures


class Prediction(NamedTuple):
    """A frame that has been segmented but not remembered yet.

    prob: soft masks, background first, zero for empty slots.
    """

    prob: Float[Array, "b n H W"]
    segmentation: Segmentation


def encode(
    network: Network | WatchedNetwork, config: PropagationConfig, image: Float[Array, "1 H W 3"]
) -> Encoded:
    """Run the image encoder on a frame; image: RGB in [0, 1], padded."""
    images = with_mirror_image(image, config)
    return Encoded(images, network(S3.encode_image, images))


def step(
    network: Network,
    config: PropagationConfig,
    state: VideoState,
    image: Float[Array, "1 H W 3"],
    end: Flag = False,
    permanent: Flag = False,
) -> tuple[VideoState, Float[Array, "n H W"]]:
    """Segment a frame, and remember it if it is a memory frame.

    Args:
      state: memory after the previous frames.
      image: RGB in [0, 1], padded.
      end: True for the video's last frame, which need not be remembered.
      permanent: True to keep this frame forever (the caller has made room with `state.grow`).

    Returns:
      The next state, and probabilities: background first, then one map per slot (0 if empty).
    """
    encoded = encode(network, config, image)
    return step_encoded(network, config, state, encoded, end, permanent)


def step_encoded(
    network: Network,
    config: PropagationConfig,
    state: VideoState,
    encoded: Encoded,
    end: Flag = False,
    permanent: Flag = False,
) -> tuple[VideoState, Float[Array, "n H W"]]:
    """Run the part of `step` that follows the image encoder and depends on earlier frames.

    Args:
      encoded: the frame, from `encode`.
      state, end, permanent: see `step`.

    Returns:
      See `step`.
    """
    state, readout = read_next(config, state, encoded.features)
    return step_read(network, config, state, encoded, readout, end, permanent)


def step_read(
    network: Network,
    config: PropagationConfig,
    state: VideoState,
    encoded: Encoded,
    readout: Float[Array, "b k h w c"],
    end: Flag = False,
    permanent: Flag = False,
) -> tuple[VideoState, Float[Array, "n H W"]]:
    """Run the part of `step` that follows reading the memory.

    Args:
      encoded: the frame, from `encode`.
      readout: every object's readout, from `read_next`.
      state, end, permanent: see `step`.

    Returns:
      See `step`.
    """
    prediction = _segment_read(network, config, state, encoded.features, readout)
    distance = state.since_memory + 1
    end, permanent = jnp.asarray(end), jnp.asarray(permanent)
    state = _update_sensory(network, config, state, prediction, distance, end)
    state = state.replace(last_mask=prediction.prob[:, 1:], since_memory=distance)
    is_memory_frame = ((distance >= config.mem_every) & ~end) | permanent
    state = update_if(
        is_memory_frame,
        lambda state: remember_last(network, config, state, encoded, permanent),
        state,
    )
    return state, prediction.prob[0]


def annotate(
    network: Network,
    config: PropagationConfig,
    state: VideoState,
    image: Float[Array, "1 H W 3"],
    masks: Float[Array, "1 k H W"],
    given: Bool[Array, " k"],
    end: Flag = False,
    permanent: Flag = False,
    *,
    complete: bool = False,
) -> tuple[VideoState, Float[Array, "n H W"]]:
    """Process a frame for which masks of some objects are given; it becomes a memory frame.

    Args:
      masks: given masks, hard or soft, in the slots of their objects.
      given: slots whose mask is given. New objects are among them and have their slot already.
      complete: (static) True if every object's mask is given, so that nothing need be segmented.
      state, image, end, permanent: see `step`.

    Returns:
      See `step`.
    """
    encoded = encode(network, config, image)
    return annotate_encoded(
        network, config, state, encoded, masks, given, end, permanent, complete=complete
    )


def annotate_encoded(
    network: Network,
    config: PropagationConfig,
    state: VideoState,
    encoded: Encoded,
    masks: Float[Array, "1 k H W"],
    given: Bool[Array, " k"],
    end: Flag = False,
    permanent: Flag = False,
    *,
    complete: bool = False,
) -> tuple[VideoState, Float[Array, "n H W"]]:
    """Run the part of `annotate` that follows the image encoder.

    Args:
      encoded: the frame, from `encode`.
      state, masks, given, end, permanent, complete: see `annotate`.

    Returns:
      See `step`.
    """
    masks = _mirror_masks(masks, config)
    distance = state.since_memory + 1
    end, permanent = jnp.asarray(end), jnp.asarray(permanent)
    predicted = jnp.zeros_like(masks)
    if not complete:
        state, prediction = segment_next(network, config, state, encoded.features)
        state = _update_sensory(network, config, state, prediction, distance, end)
        predicted = prediction.prob[:, 1:]
    prob = normalize(_overwrite(predicted, masks, given), active(state))
    state = state.replace(last_mask=prob[:, 1:], since_memory=distance)
    state = update_if(
        ~end | permanent,
        lambda state: remember_last(network, config, state, encoded, permanent),
        state,
    )
    return state, prob[0]


def segment_next(
    network: Network | WatchedNetwork,
    config: PropagationConfig,
    state: VideoState,
    features: ImageFeatures,
) -> tuple[VideoState, Prediction]:
    """Segment all remembered objects; the returned state has counted usage."""
    state, readout = read_next(config, state, features)
    return state, _segment_read(network, config, state, features, readout)


def read_next(
    config: PropagationConfig, state: VideoState, features: ImageFeatures
) -> tuple[VideoState, Float[Array, "b k h w c"]]:
    """Return the state with usage counted, and the readout of every object for a frame."""
    readout, memory = read_memory(config, state, features.key)
    return state.replace(memory=memory), readout


def _segment_read(
    network: Network | WatchedNetwork,
    config: PropagationConfig,
    state: VideoState,
    features: ImageFeatures,
    readout: Float[Array, "b k h w c"],
) -> Prediction:
    """Segment all remembered objects with a given readout."""
    seen = remembered(state)
    segmentation, _ = frame.segment(
        network,
        features,
        state.objects,
        lambda _: (readout, None),
        jnp.broadcast_to(seen.astype(state.sensory.dtype)[None], state.sensory.shape[:2]),
        same_bucket(state),
        config.chunk_size,
    )
    prob = _softmax_over_slots(segmentation.logits, seen)
    if config.flip:
        average = (prob[:1] + prob[1:, ..., ::-1]) / 2
        prob = jnp.concatenate([average, average[..., ::-1]])
    return Prediction(prob, segmentation)


def remember_last(
    network: Network,
    config: PropagationConfig,
    state: VideoState,
    encoded: Encoded,
    permanent: Flag,
) -> VideoState:
    """Return the state that also remembers the frame whose masks are `state.last_mask`."""
    objects, memory = frame.remember(
        network,
        encoded.images,
        encoded.features.pix_feat,
        state.objects,
        functools.partial(write_memory, config, state, encoded.features.key, permanent),
        active(state),
        chunk_size=config.chunk_size,
    )
    return state.replace(
        memory=memory, since_memory=jnp.zeros_like(state.since_memory), **objects._asdict()
    )


def read_memory(
    config: PropagationConfig, state: VideoState, query: Key
) -> tuple[Float[Array, "b k h w c"], KeyValueMemory]:
    """Read the memory at a frame's pixels.

    Returns:
      The readout of every object, and the memory with usage counted.
    """
    h, w = query.key.shape[1:3]
    readout, memory = policy_of(config).read(
        state.memory,
        MemoryQuery(_flatten_space(query.key), _flatten_space(query.selection), state.bucket_of),
    )
    return readout.reshape(*readout.shape[:2], h, w, readout.shape[-1]), memory


def write_memory(
    config: PropagationConfig,
    state: VideoState,
    key: Key,
    permanent: Flag,
    value: Float[Array, "b k h w c"],
) -> KeyValueMemory:
    """Return the memory with a frame's keys and the values of every object added to it."""
    entry = MemoryFrame(
        key=_flatten_space(key.key),
        shrinkage=key.shrinkage.reshape(key.shrinkage.shape[0], -1),
        selection=_flatten_space(key.selection),
        value=value.reshape(*value.shape[:2], -1, value.shape[-1]),
        mask=state.last_mask,
        bucket_of=state.bucket_of,
        active=active_buckets(state),
        permanent=permanent,
    )
    return policy_of(config).admit(state.memory, entry)


@functools.lru_cache(maxsize=64)
def sensory_schedule(mem_every: int, stagger: int) -> tuple[bool, ...]:
    """Return True for each distance (0 to `mem_every`) at which the decoder updates.

    Distances are from the last memory frame. The sensory memory is updated at `stagger` of them,
    spread evenly over the interval between two memory frames (docs/propagation.md, section 1.4).
    """
    if stagger >= mem_every:
        chosen = set(range(1, mem_every + 1))
    else:
        chosen = {int(d) for d in np.round(np.linspace(1, mem_every, stagger))}
    return tuple(d in chosen for d in range(mem_every + 1))


def _update_sensory(
    network: Network,
    config: PropagationConfig,
    state: VideoState,
    prediction: Prediction,
    distance: Array,
    end: Array,
) -> VideoState:
    """Apply the decoder's update of the sensory memory at the frames that are due."""
    schedule = np.array(sensory_schedule(config.mem_every, config.stagger))
    due = jnp.asarray(schedule)[jnp.minimum(distance, config.mem_every)]
    due = due & (distance <= config.mem_every) & ~end
    sensory = frame.update_sensory(
        network, state.objects, prediction.segmentation, due, remembered(state), config.chunk_size
    )
    return state.replace(sensory=sensory)


def normalize(masks: Float[Array, "b k H W"], active: Bool[Array, " k"]) -> Float[Array, "b n H W"]:
    """Turn given and predicted masks into probabilities over background and objects.

    At pixels where all masks are hard (0 or 1), the derivative of this function is 0, which would
    cut off a hard first mask from everything after it. There the derivative of the masks themselves
    is used instead (straight-through), with the remainder going to the background.
    """
    masks = jnp.where(active.reshape(1, -1, 1, 1), masks, 0)
    prob = _softmax_over_slots(aggregate(masks), active)
    clamped = (masks <= EPSILON) | (masks >= 1 - EPSILON)
    hard = jnp.all(clamped, axis=1, keepdims=True)
    remainder = 1 - jnp.sum(masks, axis=1, keepdims=True)
    given = jnp.concatenate([remainder, masks], axis=1)
    straight = jax.lax.stop_gradient(prob) + (given - jax.lax.stop_gradient(given))
    return jnp.where(hard, straight, prob)


def _softmax_over_slots(
    logits: Float[Array, "b n H W"], active: Bool[Array, " k"]
) -> Float[Array, "b n H W"]:
    """Apply a softmax in which empty slots get exactly zero."""
    channels = jnp.concatenate([jnp.ones(1, bool), active]).reshape(1, -1, 1, 1)
    return softmax_over_objects(jnp.where(channels, logits, -jnp.inf))


def _overwrite(
    predicted: Float[Array, "b k H W"], masks: Float[Array, "b k H W"], given: Bool[Array, " k"]
) -> Float[Array, "b k H W"]:
    """Replace predictions by given masks; all others become zero where a given object is."""
    given = given.reshape(1, -1, 1, 1)
    covered = jnp.any(given & (masks > 0.5), axis=1, keepdims=True)
    return jnp.where(given, masks, jnp.where(covered, 0, predicted))


def with_mirror_image(
    image: Float[Array, "1 H W 3"], config: PropagationConfig
) -> Float[Array, "b H W 3"]:
    """Return the image and, with flip augmentation, its mirror image after it."""
    return jnp.concatenate([image, image[:, :, ::-1]]) if config.flip else image


def _mirror_masks(masks: Float[Array, "1 k H W"], config: PropagationConfig) -> Array:
    return jnp.concatenate([masks, masks[..., ::-1]]) if config.flip else masks


def _flatten_space(x: Float[Array, "b h w c"]) -> Float[Array, "b hw c"]:
    return x.reshape(x.shape[0], -1, x.shape[-1])
