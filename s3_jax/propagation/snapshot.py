"""A video's state in a file: safetensors with a JSON description, written atomically."""

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
from s3_jax.propagation.slots import Capacity
from s3_jax.propagation.state import VideoState, grow

KEY = "s3_jax_session"


def save(path: str | Path, state: VideoState | None, about: dict[str, Any]) -> None:
    """Writes a state (None before the first mask) and its description."""
    leaves = [] if state is None else jax.tree.leaves(state)
    arrays = {f"{i:03d}": _storable(np.asarray(leaf)) for i, leaf in enumerate(leaves)}
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(safetensors.numpy.save(arrays, {KEY: json.dumps(about)}))


def read(path: str | Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The description and arrays of a file written by `save`.

    Raises:
      InputError: there is no such file, or it is damaged or of another kind.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})[KEY])
            return about, [file.get_tensor(key) for key in sorted(file.keys())]
    except (OSError, safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} cannot be read as a saved session ({error}): delete it to start anew"
        ) from error


def restore(
    empty: VideoState, capacity: Capacity, arrays: list[np.ndarray], path: str | Path
) -> VideoState:
    """The state that was saved, given an empty one of the same settings.

    Raises:
      InputError: the arrays do not fit the settings.
    """
    template = grow(
        empty,
        objects=capacity.objects,
        buckets=capacity.buckets,
        permanent=capacity.permanent,
    )
    leaves, structure = jax.tree.flatten(template)
    if [leaf.shape for leaf in leaves] != [array.shape for array in arrays]:
        raise InputError(f"{path} does not fit this session's settings: delete it to start anew")
    restored = [
        jnp.asarray(array.view(leaf.dtype) if leaf.dtype == jnp.bfloat16 else array)
        for leaf, array in zip(leaves, arrays, strict=True)
    ]
    return jax.tree.unflatten(structure, restored)


def _storable(array: np.ndarray) -> np.ndarray:
    """bfloat16 as the 16-bit integers it consists of."""
    return array.view(np.uint16) if array.dtype == jnp.bfloat16 else array
