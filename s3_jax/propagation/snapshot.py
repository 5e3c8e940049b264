"""Storage of a video's state: safetensors with a JSON description, written atomically."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from s3_jax.errors import InputError
from s3_jax.files import replacing
from s3_jax.media.json_files import parse_json
from s3_jax.propagation.slots import Capacity
from s3_jax.propagation.state import VideoState, grow

KEY = "s3_jax_session"


CHECKSUM = "sha256"
Masks = dict[tuple[int, int], np.ndarray]  # by frame and object id


def save(
    path: str | Path, state: VideoState | None, about: dict[str, Any], masks: Masks | None = None
) -> None:
    """Write a state (None before the first mask), its description, and waiting masks."""
    leaves = [] if state is None else jax.tree.leaves(state)
    arrays = {f"{i:03d}": _storable(np.asarray(leaf)) for i, leaf in enumerate(leaves)}
    arrays |= {
        f"mask {frame} {id_}": np.ascontiguousarray(mask)
        for (frame, id_), mask in (masks or {}).items()
    }
    text = json.dumps(about)
    data = safetensors.numpy.save(arrays, {KEY: text, CHECKSUM: _checksum(text, arrays)})
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(data)


def read(path: str | Path) -> tuple[dict[str, Any], list[np.ndarray], Masks]:
    """Return the description, the arrays and the waiting masks of a file that `save` wrote.

    Raises:
      InputError: there is no such file, or it is damaged or another kind of file.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            about = parse_json(metadata[KEY])
            arrays = {key: file.get_tensor(key) for key in sorted(file.keys())}
            masks = {
                (int(key.split()[1]), int(key.split()[2])): arrays[key]
                for key in arrays
                if not key.isdecimal()
            }
        if not isinstance(about, dict):
            raise ValueError("no description")
        if metadata.get(CHECKSUM, "") not in ("", _checksum(metadata[KEY], arrays)):
            raise ValueError("its checksum does not match its data")
    except (
        OSError, safetensors.SafetensorError, KeyError, ValueError, IndexError,
    ) as error:  # fmt: skip
        raise InputError(
            f"{path} cannot be read as a saved session ({error}): delete it to start over"
        ) from error
    return about, [array for key, array in arrays.items() if key.isdecimal()], masks


def _checksum(text: str, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for key in sorted(arrays):
        array = arrays[key]
        digest.update(f"\n{key} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def restore(
    empty: VideoState, capacity: Capacity, arrays: list[np.ndarray], path: str | Path
) -> VideoState:
    """Return the saved state, given an empty one with the same settings.

    Raises:
      InputError: the arrays do not fit the settings.
    """
    leaves, structure = _shapes(empty, capacity)
    if [leaf.shape for leaf in leaves] != [array.shape for array in arrays]:
        raise InputError(f"{path} does not fit this session's settings: delete it to start over")
    restored = [
        jnp.asarray(array.view(leaf.dtype) if leaf.dtype == jnp.bfloat16 else array)
        for leaf, array in zip(leaves, arrays, strict=True)
    ]
    return jax.tree.unflatten(structure, restored)


def _shapes(empty: VideoState, capacity: Capacity) -> tuple[list[Any], Any]:
    """Return the shapes and structure of a state with that capacity, without allocating it.

    A file may claim any capacity, but has to hold the arrays for it.
    """
    structures = []

    def grown(state: VideoState) -> list[Any]:
        """Return the leaves after growth, and note their structure."""
        leaves, structure = jax.tree.flatten(grow(state, **dataclasses.asdict(capacity)))
        structures.append(structure)
        return leaves

    return jax.eval_shape(grown, empty), structures[0]


def _storable(array: np.ndarray) -> np.ndarray:
    """Return bfloat16 arrays as 16-bit integers with the same bits, others unchanged."""
    return array.view(np.uint16) if array.dtype == jnp.bfloat16 else array
