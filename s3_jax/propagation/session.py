"""Interactive segmentation of one video: the only stateful class.

    session = Session(config, variables)
    session.add(first_mask)                     # H x W ids, 0 is background
    for result in session.propagate(frames):    # H x W x 3 uint8
        mask = result.index_mask()

Object ids are the caller's; the session keeps track of their slots in the arrays. Masks may be
given for any future frame and any known or new ids. Objects may be deleted at any time.
"""

import contextlib
import copy
import dataclasses
import functools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from s3_jax.config import ModelConfig, PropagationConfig, from_dict, to_dict
from s3_jax.errors import InputError
from s3_jax.limits import require_within
from s3_jax.models.s3 import S3
from s3_jax.ops.products import computing_types
from s3_jax.propagation import snapshot
from s3_jax.propagation.ahead import encode_ahead
from s3_jax.propagation.explain import Explanation, explain
from s3_jax.propagation.frame import Network, Variables
from s3_jax.propagation.geometry import (
    FrameGeometry,
    network_geometry,
    pad,
    prepare_image,
    resize_mask,
    restore,
)
from s3_jax.propagation.interrupts import interrupts_wait
from s3_jax.propagation.slots import Capacity, Slots
from s3_jax.propagation.state import (
    VideoState,
    assign_slots,
    grow,
    init_state,
    release_slots,
)
from s3_jax.propagation.step import Encoded, annotate_encoded, encode, step_encoded

Masks = np.ndarray | Mapping[int, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class FrameResult:
    """Masks of one frame.

    frame_index: number of the frame, counted from 0.
    object_ids: ids in the order they were added.
    confidence: per id, the mean probability over the pixels where the object wins (0 if nowhere).
    """

    frame_index: int
    object_ids: tuple[int, ...]
    _prob: Array | np.ndarray
    _labels: Array | np.ndarray
    _confidence: Array | np.ndarray

    @property
    def prob(self) -> Float[np.ndarray, "n h w"]:
        """Probabilities at the frame's size, background first, then `object_ids`; float32."""
        return np.asarray(self._prob)[: len(self.object_ids) + 1]

    @property
    def confidence(self) -> dict[int, float]:
        """Mean probability over an object's pixels by object id, in [0, 1]."""
        values = np.asarray(self._confidence)
        return {id_: float(values[i]) for i, id_ in enumerate(self.object_ids)}

    def index_mask(self) -> np.ndarray:
        """Return object ids (h, w), 0 for background; uint8, uint16 or int32 depending on ids."""
        ids = np.array((0, *self.object_ids))
        return ids.astype(np.result_type(*(np.min_scalar_type(i) for i in ids)))[self._labels]


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedFrame:
    """A frame that has passed the image encoder, from `Session.encode`, for `Session.step`."""

    _network: Network
    _geometry: FrameGeometry
    _encoded: Encoded

    def block_until_ready(self) -> "EncodedFrame":
        """Wait until the encoder is done, as for JAX's arrays; return the frame."""
        jax.block_until_ready(self._encoded)
        return self


@dataclasses.dataclass
class _Annotation:
    """Masks waiting for their frame, by object id: bool (hard) or float32 (soft), (h, w)."""

    masks: dict[int, np.ndarray]
    permanent: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class SessionSnapshot:
    """Copy of a session's memory at one moment, on the host.

    frame_index: index of the frame to process next.
    nbytes: size of its arrays in bytes.
    """

    frame_index: int
    nbytes: int
    _geometry: FrameGeometry | None
    _slots: Slots
    _pending: dict[int, _Annotation]
    _leaves: list[np.ndarray]
    _structure: Any


class Session:
    """Memory of one video and its objects.

    Args:
      config, variables: a network, for example from `s3_jax.checkpoints.model.load_model`.
      propagation: how the video is processed; defaults to what suits the network.
      dtype: type of the network's computation, float32 or bfloat16.
    """

    def __init__(
        self,
        config: ModelConfig,
        variables: Variables,
        propagation: PropagationConfig | None = None,
        *,
        dtype: Any = jnp.float32,
    ) -> None:
        self.config = config
        self.propagation = propagation or PropagationConfig.suiting(config)
        dtype = jnp.dtype(dtype) if isinstance(dtype, str) else dtype
        self._dtype = dtype
        used = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
        computed, products = computing_types(dtype)
        model = S3(config, dtype=computed, products=products)
        self._network = Network(model, jax.device_put(used))
        devices = jax.tree.leaves(self._network.variables)[0].devices()
        self._device = min(devices, key=str) if len(devices) == 1 else None
        self.reset()

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the known objects, in the order they were added."""
        return self._slots.ids

    @property
    def state(self) -> VideoState | None:
        """Memory on the device (None before the first mask); only valid until the next step."""
        return self._state

    @property
    def frame_index(self) -> int:
        """Index of the next frame."""
        return self._next_frame

    @property
    def network(self) -> Network:
        """The network and its variables, on the device."""
        return self._network

    @property
    def geometry(self) -> FrameGeometry | None:
        """Sizes of the video's frames (None before the first frame)."""
        return self._geometry

    @property
    def capacity(self) -> Capacity:
        """Number of slots in the state."""
        return self._slots.capacity

    @property
    def buckets(self) -> int:
        """Number of distinct frames in which known objects entered."""
        return self._slots.buckets

    def reset(self) -> None:
        """Forget the video and its objects; keep compiled programs."""
        self._slots = Slots()
        self._state: VideoState | None = None
        self._geometry: FrameGeometry | None = None
        self._pending: dict[int, _Annotation] = {}
        self._next_frame = 0

    def add(
        self, masks: Masks, frame_index: int | None = None, *, permanent: bool = False
    ) -> tuple[int, ...]:
        """Give masks for a frame that has not been processed yet.

        Args:
          masks: (h, w) integers, an object id per pixel and 0 for background, with any known and
            new ids; or (h, w) booleans, the mask of object 1; or masks (h, w) by id, boolean or
            soft in [0, 1], which may be empty.
          frame_index: frame that the masks belong to; by default the next one.
          permanent: True to keep that frame in memory forever.

        Returns:
          The ids given.

        Raises:
          InputError: the frame has passed, an id is not a positive integer, a shape is not that of
            the video, or nothing is given. Masks given before do not change.
        """
        index = self._next_frame if frame_index is None else frame_index
        if index < self._next_frame:
            raise InputError(
                f"frame {index} has been processed already; masks can be given from frame "
                f"{self._next_frame} on; to correct it, restore() a snapshot() of the session "
                "from before it, or use s3_jax.annotation.annotator.Annotator"
            )
        given = _masks_by_id(masks)
        self._check_sizes(given, index)
        require_within(
            "objects",
            float(len({*self._slots.ids, *given, *self._waiting()})),
            f"{len(given)} objects given for frame {index} would make too many",
        )
        annotation = self._pending.setdefault(index, _Annotation({}))
        annotation.masks.update(given)
        annotation.permanent |= permanent
        return tuple(given)

    def withdraw(self, frame_index: int | None = None) -> None:
        """Withdraw the masks that are waiting for a frame, by default for all frames."""
        if frame_index is None:
            self._pending.clear()
        else:
            self._pending.pop(frame_index, None)

    def delete(self, ids: Sequence[int]) -> None:
        """Forget objects, free their memory, and withdraw their waiting masks.

        Raises:
          InputError: an id is not known.
        """
        ids = list(dict.fromkeys(ids))
        unknown = [id_ for id_ in ids if id_ not in (*self._slots.ids, *self._waiting())]
        if unknown:
            raise InputError(f"object {unknown[0]} is not known; known ids: {self.object_ids}")
        for annotation in self._pending.values():
            for id_ in ids:
                annotation.masks.pop(id_, None)
        ids = [id_ for id_ in ids if id_ in self._slots.ids]
        if not ids:
            return
        deleted = self._slots.mask(ids)
        if self._state is not None:
            self._state = release_slots(self._state, jnp.asarray(deleted))
        self._slots.delete(ids)

    def encode(self, image: UInt8[np.ndarray, "h w 3"]) -> EncodedFrame:
        """Run the image encoder on a frame of this video, which need not be the next one.

        The encoder needs no memory, so this may run in another thread while earlier frames are
        being processed (`ahead.encode_ahead`). The result can be used in several steps.

        Args:
          image: RGB, uint8.

        Raises:
          InputError: see `step`.
        """
        geometry = self._geometry_of(image)
        on_device = jax.default_device(self._device) if self._device else contextlib.nullcontext()
        with on_device:  # other threads have another default
            encoded = _encode(
                self._network.model, self.propagation, geometry, self._network.variables, image
            )
        return EncodedFrame(self._network, geometry, encoded)

    def step(
        self, image: np.ndarray | EncodedFrame, *, end: bool = False, permanent: bool = False
    ) -> FrameResult:
        """Process the next frame.

        Args:
          image: RGB, uint8; or the result of this session's `encode` for it.
          end: True for the last frame, which need not be remembered.
          permanent: True to keep it in memory forever.

        Raises:
          InputError: the frame is not an RGB image of the same size as earlier frames, was encoded
            by another session, or masks given for it have another size.
        """
        geometry = self._geometry_of(image)
        annotation = self._pending.get(self._next_frame, _Annotation({}))
        _check_mask_sizes(annotation.masks, geometry.original, self._next_frame)
        index, permanent = self._next_frame, permanent or annotation.permanent
        with interrupts_wait(), self._all_or_nothing():
            self._geometry = geometry
            if annotation.masks:
                prob = self._annotate(image, annotation.masks, end, permanent)
            elif self._slots.ids:
                prob = self._propagate(image, end, permanent)
            else:
                prob = None
            result = self._result(index, prob)
            self._pending.pop(index, None)
            self._next_frame = index + 1
        return result

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Restore the session to its state before the block if the block fails.

        If a device fails in the middle of a step, the state has been consumed. The session is then
        reset, because none of its content can be trusted.
        """
        before = copy.deepcopy(self._slots), self._geometry, self._state
        try:
            yield
        except BaseException:
            self._slots, self._geometry, self._state = before
            if any(leaf.is_deleted() for leaf in jax.tree.leaves(self._state)):
                self.reset()
            raise

    def propagate(self, frames: Iterable[np.ndarray]) -> Iterator[FrameResult]:
        """Process frames one after the other; the last of them ends the video.

        On CPUs, another thread reads `frames` and encodes them, up to three frames ahead.

        Raises:
          InputError: see `step`.
        """

        def needed(item: tuple[int, np.ndarray]) -> np.ndarray | None:
            """Return the image if an object exists by then."""
            index, image = item
            exists = self._slots.ids or min(tuple(self._pending), default=index + 1) <= index
            return image if exists else None

        numbered = enumerate(frames, self._next_frame)
        held: list[Any] = []
        with contextlib.closing(encode_ahead(self, numbered, needed)) as ahead:
            for (_, image), encoded in ahead:
                if held:
                    yield self.step(held.pop())
                held.append(image if encoded is None else encoded)
            if held:
                yield self.step(held.pop(), end=True)

    def explain(self, image: np.ndarray) -> Explanation:
        """Return what object queries would read in the next frame, without remembering it.

        Args:
          image: RGB, uint8.

        Returns:
          Queries, attention masks and similarities of the objects, in the order of `object_ids`.

        Raises:
          InputError: no frame with a mask has been processed, or the frame does not fit the video.
        """
        geometry = self._geometry_of(image)
        if self._state is None:
            raise InputError("there is nothing to explain yet: step over a frame with a mask first")
        slots = [self._slots.slot(object_id) for object_id in self.object_ids]
        found = explain(self._network, self.propagation, geometry, self._state, image)
        return found.of(slots)

    def hand_over(self, objects: int) -> VideoState:
        """Return the state with `objects` slots; afterwards it belongs to the caller."""
        assert self._state is not None
        state = grow(self._state, objects=objects)
        self._state = None
        self._slots.capacity = dataclasses.replace(self._slots.capacity, objects=objects)
        return state

    def take(self, prob: Array) -> FrameResult:
        """Return the result of a step that the caller ran.

        prob: probabilities by slot, at the padded size.
        """
        index, self._next_frame = self._next_frame, self._next_frame + 1
        return self._result(index, prob)

    def snapshot(self) -> SessionSnapshot:
        """Return a copy of the session's memory, which `restore` accepts.

        The copy is in host memory and does not change with the session.
        """
        leaves, structure = jax.tree.flatten(self._state)
        copies = [np.array(leaf) for leaf in leaves]  # steps overwrite the arrays
        return SessionSnapshot(
            self._next_frame,
            sum(leaf.nbytes for leaf in copies),
            self._geometry,
            copy.deepcopy(self._slots),
            _copied(self._pending),
            copies,
            structure,
        )

    def restore(self, snapshot: SessionSnapshot) -> None:
        """Go back (or forward) to a snapshot of this session, or of another with equal settings.

        Masks can then be given for frames from `snapshot.frame_index` on, which are processed
        again.
        """
        self._slots = copy.deepcopy(snapshot._slots)
        self._geometry, self._next_frame = snapshot._geometry, snapshot.frame_index
        self._pending = _copied(snapshot._pending)
        # Copy again, because a CPU device may use the arrays directly and overwrite them.
        leaves = jax.device_put([leaf.copy() for leaf in snapshot._leaves])
        self._state = jax.tree.unflatten(snapshot._structure, leaves)

    def reserve(self, objects: int, buckets: int) -> None:
        """Reserve room for a number of objects that will enter in a number of frames.

        Programs are compiled for the current room. Reserving it in advance costs one compilation,
        instead of one each time objects outgrow it. Room never shrinks.
        """
        if self._slots.reserve(objects, buckets) and self._state is not None:
            self._state = grow(self._state, **dataclasses.asdict(self._slots.capacity))

    def save(self, path: str | Path) -> None:
        """Write the session's memory to a file, atomically; `load` continues from there."""
        pending = {
            (index, id_): mask
            for index, annotation in self._pending.items()
            for id_, mask in annotation.masks.items()
        }
        snapshot.save(path, self._state, self._about(), pending)

    def load(self, path: str | Path) -> None:
        """Continue from a file that `save` wrote in a session with equal settings.

        Raises:
          InputError: the file is missing, damaged, or from a session with other settings.
        """
        about, arrays, masks = snapshot.read(path)
        mine = self._about()
        kinds = {"model": ModelConfig, "propagation": PropagationConfig, "dtype": str}
        for name, kind in kinds.items():
            saved, current = (_setting(kind, value.get(name)) for value in (about, mine))
            if saved != current:
                raise InputError(
                    f"{path} was saved with another {name} setting: "
                    f"{_difference(saved, current)}; use the settings it was saved with, or start "
                    "over"
                )
        try:
            slots, next_frame = Slots.from_dict(about["slots"]), int(about["next_frame"])
            size = about["size"] and (int(about["size"][0]), int(about["size"][1]))
            permanent = {int(index) for index in about.get("permanent_frames", ())}
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise InputError(
                f"{path} cannot be read as a saved session ({error!r}): delete it to start over"
            ) from error
        if size:
            pixels = size[0] * size[1] / 1e6
            require_within("megapixels", pixels, f"{path} declares frames of {size[1]}x{size[0]}")
        geometry = self._make_geometry(size) if size else None
        state = None
        if geometry is not None and arrays:
            empty = self._empty_state(geometry)
            state = snapshot.restore(empty, slots.capacity, arrays, path)
        self.reset()
        self._slots, self._next_frame = slots, next_frame
        self._geometry, self._state = geometry, state
        for index, id_ in masks:
            annotation = self._pending.setdefault(index, _Annotation({}, index in permanent))
            annotation.masks[id_] = masks[index, id_]

    def _about(self) -> dict[str, Any]:
        return {
            "model": to_dict(self.config),
            "propagation": to_dict(self.propagation),
            "dtype": jnp.dtype(self._dtype).name,
            "slots": self._slots.to_dict(),
            "next_frame": self._next_frame,
            "size": self._geometry.original if self._geometry else None,
            "permanent_frames": [i for i, given in self._pending.items() if given.permanent],
        }

    def _waiting(self) -> set[int]:
        """Return the ids of masks that are waiting for their frames."""
        return {id_ for given in self._pending.values() for id_ in given.masks}

    def _check_sizes(self, masks: dict[int, np.ndarray], index: int) -> None:
        """Refuse masks of a size that no frame of this video can have."""
        if self._geometry is not None:
            _check_mask_sizes(masks, self._geometry.original, index)
        shapes = {mask.shape for mask in masks.values()}
        if len(shapes) > 1:
            raise InputError(f"the masks for frame {index} have different sizes: {sorted(shapes)}")

    def _geometry_of(self, image: np.ndarray | EncodedFrame) -> FrameGeometry:
        """Return the geometry of a frame, checked against earlier frames."""
        if isinstance(image, EncodedFrame):
            geometry = image._geometry
        else:
            geometry = self._make_geometry(self._checked_size(image))
        if self._geometry is not None and geometry != self._geometry:
            (height, width), before = geometry.original, self._geometry.original
            raise InputError(
                f"frame {self._next_frame} is {width}x{height} but the video so far is "
                f"{before[1]}x{before[0]}: resize it, or start a new session with reset()"
            )
        if isinstance(image, EncodedFrame) and image._network is not self._network:
            raise InputError(
                f"frame {self._next_frame} was encoded by another session, perhaps with other "
                "weights or settings: encode it with this one"
            )
        return geometry

    def _checked_size(self, image: np.ndarray) -> tuple[int, int]:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise InputError(
                f"frame {self._next_frame} has shape {image.shape} and type {image.dtype}; it must "
                "be an RGB image (height, width, 3) of type uint8"
            )
        return image.shape[0], image.shape[1]

    def _make_geometry(self, size: tuple[int, int]) -> FrameGeometry:
        return network_geometry(size, self.config, self.propagation.max_internal_size)

    def _empty_state(self, geometry: FrameGeometry) -> VideoState:
        dtype = jnp.dtype(self._network.model.dtype)
        return init_state(self.config, self.propagation, geometry.padded, 1, dtype)

    def _encoded(self, image: np.ndarray | EncodedFrame) -> Encoded:
        return (image if isinstance(image, EncodedFrame) else self.encode(image))._encoded

    def _annotate(
        self,
        image: np.ndarray | EncodedFrame,
        masks: dict[int, np.ndarray],
        end: bool,
        permanent: bool,
    ) -> Array:
        self._admit([id_ for id_ in masks if id_ not in self._slots.ids])
        self._make_room(permanent)
        complete = set(self._slots.ids) <= set(masks)
        assert self._geometry is not None
        stacked = np.zeros((self._slots.capacity.objects, *self._geometry.inner), np.float32)
        for id_, mask in masks.items():
            stacked[self._slots.slot(id_)] = resize_mask(mask, self._geometry.inner)
        given = jnp.asarray(self._slots.mask(list(masks)))
        self._state, prob = _annotate(
            self._network.model, self.propagation, self._geometry, complete,
            self._network.variables, self._state, self._encoded(image), stacked, given, end,
            permanent,
        )  # fmt: skip
        return prob

    def _propagate(self, image: np.ndarray | EncodedFrame, end: bool, permanent: bool) -> Array:
        self._make_room(permanent)
        self._state, prob = _step(
            self._network.model, self.propagation,
            self._network.variables, self._state, self._encoded(image), end, permanent,
        )  # fmt: skip
        return prob

    def _admit(self, new: list[int]) -> None:
        """Assign slots and one new bucket to new objects, and grow the state if needed."""
        if self._state is None:
            assert self._geometry is not None
            self._state = self._empty_state(self._geometry)
            if self._slots.capacity != Capacity():
                self._state = grow(self._state, **dataclasses.asdict(self._slots.capacity))
        if not new:
            return
        before = self._slots.capacity
        bucket = self._slots.add(new)
        wanted = self._slots.capacity
        if wanted != before:
            self._state = grow(self._state, objects=wanted.objects, buckets=wanted.buckets)
        slots = jnp.asarray(self._slots.mask(new))
        self._state = assign_slots(self._state, slots, jnp.asarray(bucket, jnp.int32))

    def _make_room(self, permanent: bool) -> None:
        """Count the frame if it becomes permanent, and make room for it."""
        if self._slots.note_frame(permanent):
            assert self._state is not None
            self._state = grow(self._state, permanent=self._slots.capacity.permanent)

    def _result(self, index: int, prob: Array | None) -> FrameResult:
        assert self._geometry is not None
        if prob is None:
            height, width = self._geometry.original
            background = np.ones((1, height, width), np.float32)
            labels = np.zeros((height, width), np.uint8)
            return FrameResult(index, (), background, labels, np.zeros(0, np.float32))
        order = jnp.asarray(self._slots.order())
        return FrameResult(
            index, self._slots.ids, *_finish(self._geometry, prob, order, len(self._slots.ids))
        )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _encode(
    model: S3,
    config: PropagationConfig,
    geometry: FrameGeometry,
    variables: Variables,
    image: UInt8[Array, "h w 3"],
) -> Encoded:
    return encode(Network(model, variables), config, prepare_image(image, geometry))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=(3,))
def _step(
    model: S3,
    config: PropagationConfig,
    variables: Variables,
    state: VideoState,
    encoded: Encoded,
    end: Bool[Array, ""],
    permanent: Bool[Array, ""],
) -> tuple[VideoState, Float[Array, "n H W"]]:
    return step_encoded(Network(model, variables), config, state, encoded, end, permanent)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=(5,))
def _annotate(
    model: S3,
    config: PropagationConfig,
    geometry: FrameGeometry,
    complete: bool,
    variables: Variables,
    state: VideoState,
    encoded: Encoded,
    masks: Float[Array, "k inner_h inner_w"],
    given: Bool[Array, " k"],
    end: Bool[Array, ""],
    permanent: Bool[Array, ""],
) -> tuple[VideoState, Float[Array, "n H W"]]:
    network = Network(model, variables)
    masks = pad(masks[None], geometry, axis=2)
    return annotate_encoded(
        network, config, state, encoded, masks, given, end, permanent, complete=complete
    )


@functools.partial(jax.jit, static_argnums=(0,))
def _finish(
    geometry: FrameGeometry,
    prob: Float[Array, "n H W"],
    order: Array,
    count: Array,
) -> tuple[Float[Array, "n h w"], Array, Array]:
    """Return probabilities at the video's size in the objects' order, labels, and confidences.

    Labels are 0 for background and i for the i-th object. Empty slots come last and never win.
    """
    channels = jnp.concatenate([jnp.zeros(1, order.dtype), order + 1])
    prob = restore(prob[channels], geometry)
    exists = jnp.arange(prob.shape[0]) <= count
    labels = jnp.argmax(jnp.where(exists[:, None, None], prob, -1.0), axis=0)
    won = labels[None] == jnp.arange(1, prob.shape[0])[:, None, None]
    pixels = jnp.sum(won, axis=(1, 2))
    confidence = jnp.sum(jnp.where(won, prob[1:], 0), axis=(1, 2)) / jnp.maximum(pixels, 1)
    return prob, labels.astype(jnp.uint8 if prob.shape[0] <= 256 else jnp.uint16), confidence


def _copied(pending: dict[int, _Annotation]) -> dict[int, _Annotation]:
    """Return a copy of waiting masks that can be changed independently."""
    return {i: _Annotation(dict(given.masks), given.permanent) for i, given in pending.items()}


def _difference(saved: Any, mine: Any) -> str:
    """Describe how a saved setting differs from the current one, by field if it has fields."""
    old, new = (to_dict(x) if dataclasses.is_dataclass(x) else x for x in (saved, mine))
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return f"{old}, now {new}"
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    return ", ".join(f"{name} was {old.get(name)}, now {new.get(name)}" for name in names)


def _setting(kind: type, saved: Any) -> Any:
    """Return a saved setting as an instance of its class.

    Files from earlier versions lack newer fields, which get their defaults.
    """
    if not isinstance(saved, dict):
        return saved
    try:
        return from_dict(kind, saved)
    except ValueError:  # written by a later version
        return saved


def _masks_by_id(masks: Masks) -> dict[int, np.ndarray]:
    """Return masks (h, w) by id from an index mask or a mapping: bool if hard, else float32."""
    if isinstance(masks, Mapping):
        found = {_id(id_): np.asarray(mask) for id_, mask in masks.items()}
        found = {i: m if m.dtype == bool else m.astype(np.float32) for i, m in found.items()}
    else:
        masks = np.asarray(masks)
        masks = masks.astype(np.uint8) if masks.dtype == bool else masks
        if masks.ndim != 2 or not np.issubdtype(masks.dtype, np.integer):
            raise InputError(
                f"the mask has shape {masks.shape} and type {masks.dtype}; it must be (height, "
                "width) integers, or a mapping from id to mask"
            )
        ids = [int(id_) for id_ in np.unique(masks) if id_ != 0]
        found = {id_: masks == id_ for id_ in ids}
    _check_masks(found)
    return found


def _id(value: Any) -> int:
    """Return an object's id, refusing values that would have to be rounded."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise InputError(f"object id {value!r} is not allowed; ids are positive integers") from None


def _check_masks(masks: dict[int, np.ndarray]) -> None:
    if not masks:
        raise InputError("the mask holds no object: every pixel is 0 (background)")
    for id_, mask in masks.items():
        if id_ <= 0:
            raise InputError(f"object id {id_} is not allowed; ids are positive, 0 is background")
        if mask.ndim != 2:
            raise InputError(f"mask of object {id_} has shape {mask.shape}, not (height, width)")
        if not (np.min(mask) >= 0 and np.max(mask) <= 1):
            raise InputError(f"the mask of object {id_} has values outside [0, 1]")


def _check_mask_sizes(masks: dict[int, np.ndarray], size: tuple[int, int], index: int) -> None:
    for id_, mask in masks.items():
        if mask.shape != size:
            raise InputError(
                f"the mask of object {id_} for frame {index} is {mask.shape[1]}x{mask.shape[0]} "
                f"but the frame is {size[1]}x{size[0]}: give a mask of the frame's size"
            )
