"""The way a frame goes, written once: `segment` it, and `remember` it if it is a memory frame.

    image -> encode_image -> read -> fuse_pixels -> transform_objects -> decode_mask -> masks
    masks -> encode_mask -> sensory memory, object memory, write

`S3.segment` (models/s3.py) is the middle of the first line. A video frame by frame, a scan, a
training clip, pictures, tables of precision and exported programs all come through here; they
differ in the key/value memory, which `read` and `write` stand for.
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
    """A network with its variables: what every step computes with."""

    model: S3
    variables: Variables

    def __call__(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls one of the network's methods, for example `network(S3.encode_image, image)`."""
        with operands(self.model.products):
            return self.model.apply(self.variables, *args, method=method, **kwargs)


class WatchedNetwork:
    """A `Network` that notes what its modules sow into "intermediates"."""

    def __init__(self, model: S3, variables: Variables):
        self._network = Network(model, variables)
        self.seen: dict[str, Any] = {}

    def __call__(self, method: Any, *args: Any) -> Any:
        """Calls one of the network's methods."""
        result, noted = self._network(method, *args, mutable=["intermediates"])
        self.seen |= noted.get("intermediates", {})
        return result


class Objects(NamedTuple):
    """What is remembered of every object beside keys and values.

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
    """Segment a frame, given what is remembered of the objects.

    Args:
      features: of the frame.
      read: reads the key/value memory at the frame's pixels; gives the readout of every object, and
        the memory that goes on (reading may count what was used).
      active: 1 for objects, 0 for empty slots.
      same_bucket: 1 where two objects entered together; None if all did.
      chunk_size: objects processed at a time, which changes no result.

    Returns:
      The segmentation, and the memory that `read` gave.
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
    """Encode a frame with its masks, `objects.last_mask`, into all memories.

    Args:
      image: RGB in [0, 1]; pix_feat: its pixel feature.
      write: puts the values of every object into the key/value memory.
      active: slots that hold an object, the others stay as they are; None if all do.
      deep: update the sensory memory too.
      chunk_size: objects processed at a time, which changes no result.
    """
    encoded = network(S3.encode_mask, image, pix_feat, objects.last_mask, chunk_size)

    def update(sensory: Array) -> Array:
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
    """The sensory memory after a frame was decoded, where that update is due."""

    def update(sensory: Array) -> Array:
        new = network(S3.update_sensory, sensory, segmentation.decoded.sensory_input, chunk_size)
        return new if active is None else where_object(active, new, sensory)

    return update_if(jnp.asarray(due), update, objects.sensory)


def where_object(
    active: Bool[Array, " k"], new: Float[Array, "b k *c"], old: Float[Array, "b k *c"]
) -> Float[Array, "b k *c"]:
    """`new` in the slots where an object is, `old` elsewhere."""
    return jnp.where(active.reshape(1, -1, *(1,) * (new.ndim - 2)), new, old)
