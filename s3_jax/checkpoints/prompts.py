"""Prompt head of a checkpoint, stored among the network's parameters or in a separate file.

A training run keeps it among the network's parameters. The one that comes with the package is a
separate file, `<name>_prompts.safetensors`, with a checksum of the trunk on which it was trained.
"""

import os
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import unflatten_dict

from s3_jax.checkpoints.layout import COPY_AGAIN, CheckpointError
from s3_jax.checkpoints.model import find_model, load_model
from s3_jax.errors import reason
from s3_jax.files import replacing
from s3_jax.models.prompt_head import PROMPT_HEAD, prompt_head_shapes
from s3_jax.models.variables import Variables, flatten

SUFFIX = "_prompts.safetensors"
TRUNK = "trunk"


def load_prompt_variables(
    path_or_name: str | os.PathLike[str],
) -> tuple[Variables, dict[str, Any]]:
    """Return the variables of a checkpoint's EfficientNet-Lite0, and its prompt head's parameters.

    Args:
      path_or_name: a path or name that `find_model` accepts.

    Raises:
      CheckpointError: there is no checkpoint, it has no prompt head, or one of the two is damaged.
    """
    directory = find_model(path_or_name)
    _, variables = load_model(directory)
    head = variables["params"].get(PROMPT_HEAD)
    trunk = trunk_variables(directory, variables)
    return trunk, head if head is not None else _read_head(directory, trunk)


def trunk_variables(directory: Path, variables: Variables) -> Variables:
    """Return the variables of a network's EfficientNet-Lite0.

    Raises:
      CheckpointError: it has another image encoder.
    """
    try:
        return {name: variables[name]["image_encoder"]["backbone"] for name in
                ("params", "batch_stats")}  # fmt: skip
    except KeyError:
        raise CheckpointError(
            f"{directory}: clicks and boxes need the encoder compact_semantic; use s3_lite"
        ) from None


def save_prompt_head(path: Path, trunk: Variables, head: dict[str, Any]) -> None:
    """Write a prompt head's parameters in half precision."""
    arrays = {name: np.asarray(x, np.float16) for name, x in flatten(head).items()}
    data = safetensors.numpy.save(arrays, {TRUNK: _checksum(trunk)})
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _read_head(directory: Path, trunk: Variables) -> dict[str, Any]:
    path = directory.with_name(directory.name + SUFFIX)
    if not path.is_file():
        raise CheckpointError(
            f"{directory} has no prompt head ({path.name} is not beside it): use s3_lite, or train "
            "one with s3 train-prompts"
        )
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            owner = (file.metadata() or {}).get(TRUNK)
            arrays = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged ({reason(error)}); {COPY_AGAIN}") from error
    if owner != _checksum(trunk):
        raise CheckpointError(f"{path} belongs to other weights than those in {directory}; copy "
                              "both again")  # fmt: skip
    if {name: x.shape for name, x in arrays.items()} != prompt_head_shapes():
        raise CheckpointError(f"{path} does not fit this version of s3_jax; {COPY_AGAIN}")
    return unflatten_dict({tuple(name.split("/")): x for name, x in arrays.items()})


def _checksum(trunk: Variables) -> str:
    """Return the checksum of the trunk in half precision, in which s3_lite is stored."""
    total = 0
    for name, x in sorted(flatten(jax.device_get(trunk)).items()):
        if np.issubdtype(np.asarray(x).dtype, np.floating):
            total = zlib.crc32(
                np.asarray(x, np.float16).tobytes(), zlib.crc32(name.encode(), total)
            )
    return f"{total:08x}"
