"""Path of one frame through the network: `segment` it and, on memory frames, `remember` it.

    image -> encode_image -> read -> fuse_pixels -> transform_objects -> decode_mask -> masks
    masks -> encode_mask -> sensory memory, object memory, write

`S3.segment` (models/s3.py) is the middle of the first line. Streaming, scans, training clips,
pictures, precision tables and exported programs all call these two functions. They differ only in
the key/value memory, which they pass as `read` and `write`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from s3_jax.memory.object_memory import add_summaries, object_values
from s3_jax.models.key_projection import Key
from s3_jax.models.s3 import S3, ImageFeatures, Segmentation
from s3_jax.ops.in_place import update_if
from s3_jax.ops.products import operands

Variables = dict[str, Any]
Flag = bool | Bool[Array, ""]
Memory = TypeVar("Memory")
Readout = Float[Array, "b k h w c"]
Value = Float[Array, "b k h w c"]


class Network(NamedTuple):
    """A network and its variables, which every step needs."""

    model: S3
    variables: Variables

    def __call__(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        """Call one of the network's methods, for example `network(S3.encode_image, image)`."""
        with operands(self.model.products):
            return self.model.apply(self.variables, *args, method=method, **kwargs)


class WatchedNetwork:
    """A `Network` that collects what its modules sow into "intermediates" in `seen`."""

    def __init__(self, model: S3, variables: Variables):
        self._network = Network(model, variables)
        self.seen: dict[str, Any] = {}

    def __call__(self, method: Any, *args: Any) -> Any:
        """Call one of the network's methods."""
        result, noted = self._network(method, *args, mutable=["intermediates"])
        self.seen |= noted.get("intermediates", {})
        return result


class Objects(NamedTuple):
    """Memory of every object apart from keys and values.

    sensory: sensory memory, float32.
    object_memory: running sums of object summaries, float32.
    last_mask: soft masks of the last frame at its padded size, float32.
    """

    sensory: Float[Array, "b k h w c"]
    object_memory: Float[Array, "b k q s"]
    last_mask: Float[Array, "b k H W"]


def segment(
    network: Network | WatchedNetwork,
    features: ImageFeatures,
    objects: Objects,
    read: Callable[[Key], tuple[Readout, Memory]],
    active: Float[Array, "b k"],
    same_bucket: Float[Array, "k k"] | None = None,
    chunk_size: int = -1,
) -> tuple[Segmentation, Memory]:
    """Segment a frame, given the memory of its objects.

    Args:
      features: features of the frame.
      objects: sensory memory, object memory and last mask.
      read: function that reads the key/value memory at the frame's pixels. It returns every
        object's readout, and the updated memory (reading may count usage).
      active: 1 for objects, 0 for empty slots.
      same_bucket: 1 where two objects entered in the same frame; None if all did.
      chunk_size: number of objects processed at a time; changes no result.

    Returns:
      The segmentation, and the memory that `read` returned.
    """
    readout, memory = read(features.key)
    segmentation = network(
        S3.segment,
        features,
        readout,
        objects.sensory,
        objects.last_mask,
        object_values(objects.object_memory),
        active,
        same_bucket,
        chunk_size,
    )
    return segmentation, memory


def remember(
    network: Network | WatchedNetwork,
    image: Float[Array, "b H W 3"],
    pix_feat: Float[Array, "b h w c"],
    objects: Objects,
    write: Callable[[Value], Memory],
    active: Bool[Array, " k"] | None = None,
    deep: Flag = True,
    chunk_size: int = -1,
) -> tuple[Objects, Memory]:
    """Encode a frame with its masks (`objects.last_mask`) into all memories.

    Args:
      image: RGB in [0, 1].
      pix_feat: pixel feature of the image.
      objects: memory before the frame, and the frame's masks as `last_mask`.
      write: function that puts every object's values into the key/value memory and returns it.
      active: slots that hold an object; the others do not change. None if all do.
      deep: True to update the sensory memory too (deep update).
      chunk_size: number of objects processed at a time; changes no result.

    Returns:
      The new memory of the objects, and the memory that `write` returned.
    """
    encoded = network(S3.encode_mask, image, pix_feat, objects.last_mask, chunk_size)

    def update(sensory: Array) -> Array:
        """Return the sensory memory after the deep update."""
        new = network(S3.update_sensory_deep, sensory, encoded.value, chunk_size)
        return new if active is None else where_object(active, new, sensory)

    if isinstance(deep, bool):
        sensory = update(objects.sensory) if deep else objects.sensory
    else:
        sensory = update_if(deep, update, objects.sensory)
    summed = add_summaries(objects.object_memory, encoded.summaries, active)
    return objects._replace(sensory=sensory, object_memory=summed), write(encoded.value)


def update_sensory(
    network: Network,
    objects: Objects,
    segmentation: Segmentation,
    due: Flag,
    active: Bool[Array, " k"] | None = None,
    chunk_size: int = -1,
) -> Float[Array, "b k h w c"]:
    """Return the sensory memory after decoding a frame; unchanged where no update is `due`.

    Args:
      segmentation: result of `segment` for the frame.
      due: True if the schedule names this frame (`step.sensory_schedule`).
      active: slots that hold an object; the others do not change. None if all do.
    """

    def update(sensory: Array) -> Array:
        """Return the sensory memory after the decoder's update."""
        new = network(S3.update_sensory, sensory, segmentation.decoded.sensory_input, chunk_size)
        return new if active is None else where_object(active, new, sensory)

    return update_if(jnp.asarray(due), update, objects.sensory)


def where_object(
    active: Bool[Array, " k"], new: Float[Array, "b k *c"], old: Float[Array, "b k *c"]
) -> Float[Array, "b k *c"]:
    """Return `new` in the slots that hold an object and `old` in the others."""
    return jnp.where(active.reshape(1, -1, *(1,) * (new.ndim - 2)), new, old)
