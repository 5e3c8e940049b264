"""Export of a network, for one kind of video, to a file that needs only JAX (jax.export).

The file is a ZIP archive of

    start.jax, step.jax, encode.jax   programs (portable StableHLO, see `Programs`)
    read.jax, decode.jax              in place of step.jax, with `ExportConfig.split`
    weights.npz                       their first argument, arrays "00000", "00001", ...
    about.json                        sizes, platforms, arguments and results, checksums

Weights are stored once, beside the programs, rather than in each of them. `load_export.py`, beside
this module, loads such a file without importing anything from this project.
"""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, UInt8

from s3_jax.config import ModelConfig, PropagationConfig, to_dict
from s3_jax.errors import InputError
from s3_jax.files import replacing
from s3_jax.models.key_projection import Key
from s3_jax.models.s3 import S3, ImageFeatures
from s3_jax.ops.backend import compiling_for
from s3_jax.ops.resize import resize_masks
from s3_jax.propagation.frame import Network
from s3_jax.propagation.geometry import (
    FrameGeometry,
    network_geometry,
    pad,
    prepare_image,
    restore,
)
from s3_jax.propagation.state import VideoState, assign_slots, init_state
from s3_jax.propagation.step import (
    Encoded,
    annotate,
    encode,
    read_next,
    step,
    step_read,
    with_mirror_image,
)

FORMAT = 1
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
STEP = {"step": "(weights, state, frame) -> state, probabilities (1 + objects h w)"}
SPLIT_STEP = {
    "read": "(weights, state, features) -> state, readout (b objects h/16 w/16 c)",
    "decode": "(weights, state, frame, features, readout) -> state, probabilities",
}
Leaves = list[Array]
Features = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Settings that are fixed in the file.

    size: height and width of frames in pixels.
    objects: number of objects; masks may be left empty for fewer.
    platforms: where the file will run; kernels use the form that suits the first one.
    propagation: how videos are processed; None for what suits the network.
    split: write the step as `encode`, `read` and `decode`, so that frames can be encoded elsewhere,
      or ahead of time.
    """

    size: tuple[int, int] = (480, 864)
    objects: int = 1
    dtype: str = "float32"
    platforms: tuple[str, ...] = ("cpu",)
    propagation: PropagationConfig | None = None
    split: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.platforms if name not in PLATFORMS]
        if unknown or not self.platforms:
            raise InputError(f"platforms are {self.platforms}; choose from {', '.join(PLATFORMS)}")
        if self.objects < 1 or min(self.size) < 1:
            raise InputError(f"objects ({self.objects}) and size {self.size} must be at least 1")


@dataclasses.dataclass(frozen=True)
class Programs:
    """Pure functions of plain arrays; weights and state are lists of arrays.

    start(weights, frame, masks) -> state: the first frame with its masks (objects h w) in [0, 1].
    step(weights, state, frame) -> state, probabilities (1 + objects h w), background first.
    encode(weights, frame) -> the frame's features by name.
    read(weights, state, features) -> state, every object's readout.
    decode(weights, state, frame, features, readout) -> state, probabilities: `encode`, `read` and
      `decode` are `step` in three parts.
    """

    model: S3
    structure: Any
    config: ExportConfig
    geometry: FrameGeometry

    @property
    def propagation(self) -> PropagationConfig:
        """Return how videos are processed."""
        return self.config.propagation or PropagationConfig.suiting(self.model.config)

    def start(
        self, weights: Leaves, frame: UInt8[Array, "h w 3"], masks: Float[Array, "k h w"]
    ) -> Leaves:
        """Return the state after the first frame."""
        count = self.config.objects
        masks = resize_masks(masks[None], self.geometry.inner, "bilinear")
        state = assign_slots(self._empty_state(), jnp.ones(count, bool), jnp.int32(0))
        state, _ = annotate(
            self._network(weights),
            self.propagation,
            state,
            prepare_image(frame, self.geometry),
            pad(masks, self.geometry, axis=2),
            jnp.ones(count, bool),
            complete=True,
        )
        return jax.tree.leaves(state)

    def step(
        self, weights: Leaves, state: Leaves, frame: UInt8[Array, "h w 3"]
    ) -> tuple[Leaves, Float[Array, "n h w"]]:
        """Return the next state, and probabilities at the frames' size."""
        after, prob = step(
            self._network(weights),
            self.propagation,
            self._state(state),
            prepare_image(frame, self.geometry),
        )
        return jax.tree.leaves(after), restore(prob, self.geometry)

    def encode(self, weights: Leaves, frame: UInt8[Array, "h w 3"]) -> Features:
        """Return features at strides 16, 8 and 4, pixel feature, and key."""
        prepared = prepare_image(frame, self.geometry)
        features = encode(self._network(weights), self.propagation, prepared).features
        return features._asdict() | features.key._asdict()

    def read(
        self, weights: Leaves, state: Leaves, features: Features
    ) -> tuple[Leaves, Float[Array, "b k h16 w16 c"]]:
        """Return the state with usage counted, and every object's readout for a frame."""
        after, readout = read_next(self.propagation, self._state(state), _joined(features))
        return jax.tree.leaves(after), readout

    def decode(
        self,
        weights: Leaves,
        state: Leaves,
        frame: UInt8[Array, "h w 3"],
        features: Features,
        readout: Float[Array, "b k h16 w16 c"],
    ) -> tuple[Leaves, Float[Array, "n h w"]]:
        """Return the next state, and probabilities at the frames' size."""
        after, prob = step_read(
            self._network(weights),
            self.propagation,
            self._state(state),
            Encoded(self._images(frame), _joined(features)),
            readout,
        )
        return jax.tree.leaves(after), restore(prob, self.geometry)

    def _images(self, frame: UInt8[Array, "h w 3"]) -> Float[Array, "b H W 3"]:
        return with_mirror_image(prepare_image(frame, self.geometry), self.propagation)

    def _network(self, weights: Leaves) -> Network:
        return Network(self.model, jax.tree.unflatten(self.structure, weights))

    def _empty_state(self) -> VideoState:
        config = self.config
        return init_state(self.model.config, self.propagation, self.geometry.padded,
                          config.objects, jnp.dtype(config.dtype).type)  # fmt: skip

    def _state(self, leaves: Leaves) -> VideoState:
        """Return the state with these leaves and the structure of an empty state."""
        return jax.tree.unflatten(jax.tree.structure(self._empty_state()), leaves)


def _joined(features: Features) -> ImageFeatures:
    """Return features given by name in the form that the network takes."""
    key = Key(**{name: features[name] for name in Key._fields})
    others = {name: features[name] for name in ImageFeatures._fields if name != "key"}
    return ImageFeatures(**others, key=key)


def write_export(
    path: Path, model: ModelConfig, variables: Any, config: ExportConfig
) -> dict[str, int]:
    """Write the file atomically; equal arguments give equal bytes.

    Returns:
      The number of bytes of each of its parts.
    """
    leaves, structure = jax.tree.flatten(variables)
    geometry = network_geometry(config.size, model)
    network = S3(model, dtype=jnp.dtype(config.dtype))
    programs = Programs(network, structure, config, geometry)
    parts = _serialized(programs, leaves)
    parts["weights.npz"] = _archive(leaves)
    about = _about(programs) | {"sha256": {name: _sha256(x) for name, x in parts.items()}}
    parts["about.json"] = json.dumps(about, indent=1).encode()
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # with a constant date
    return {name: len(content) for name, content in parts.items()}


def _serialized(programs: Programs, leaves: Sequence[Array | np.ndarray]) -> dict[str, bytes]:
    config = programs.config
    frame = jax.ShapeDtypeStruct((*config.size, 3), jnp.uint8)
    masks = jax.ShapeDtypeStruct((config.objects, *config.size), jnp.float32)
    weights = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    form = {"cuda": "gpu", "rocm": "gpu"}.get(config.platforms[0], config.platforms[0])
    parts = {}
    with compiling_for(form):
        state = jax.eval_shape(programs.start, weights, frame, masks)
        calls = _calls(programs, weights, state, frame, masks)
        for name, arguments in calls.items():
            function = jax.jit(getattr(programs, name))
            exported = export.export(function, platforms=config.platforms)(weights, *arguments)
            parts[f"{name}.jax"] = bytes(exported.serialize())
    return parts


def _calls(
    programs: Programs, weights: Any, state: Any, frame: Any, masks: Any
) -> dict[str, tuple[Any, ...]]:
    """Return the arguments after the weights, for every program of the file."""
    calls = {"start": (frame, masks), "step": (state, frame), "encode": (frame,)}
    if not programs.config.split:
        return calls
    features = jax.eval_shape(programs.encode, weights, frame)
    _, readout = jax.eval_shape(programs.read, weights, state, features)
    parts = {"read": (state, features), "decode": (state, frame, features, readout)}
    return {"start": calls["start"], "encode": calls["encode"], **parts}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _archive(leaves: Sequence[Any]) -> bytes:
    file = io.BytesIO()
    arrays: dict[str, Any] = {f"{i:05d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    np.savez(file, **arrays)
    return file.getvalue()


def _about(programs: Programs) -> dict[str, Any]:
    config = programs.config
    return {
        "format": FORMAT,
        "height": config.size[0],
        "width": config.size[1],
        "objects": config.objects,
        "dtype": config.dtype,
        "platforms": config.platforms,
        "model": to_dict(programs.model.config),
        "propagation": to_dict(programs.propagation),
        "start": "(weights, frame (h w 3) uint8, masks (objects h w) float32) -> state",
        "encode": "(weights, frame) -> features by name",
        **(SPLIT_STEP if config.split else STEP),
    }
