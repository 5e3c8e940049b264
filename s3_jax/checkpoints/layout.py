"""Layout of a model checkpoint's directory, and the orbax handler that reads and writes it.

    DIR/config.json        configuration, free-form metadata, size and CRC-32 of the other files
    DIR/manifest.ocdbt ... the arrays, as `orbax.checkpoint.PyTreeCheckpointHandler` lays them out

config.json is written last, so a directory that has it is complete. The checksums are needed
because orbax detects neither flipped bits nor every missing file.
"""

import dataclasses
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from s3_jax.config import ModelConfig, from_dict, to_dict
from s3_jax.conversion.names import unused_tensors
from s3_jax.conversion.weights import not_finite
from s3_jax.errors import InputError, listed, reason
from s3_jax.files import replacing
from s3_jax.media.json_files import read_json
from s3_jax.models.prompt_head import PROMPT_HEAD, prompt_head_shapes
from s3_jax.models.shape_cache import network_shapes
from s3_jax.models.variables import Variables, flatten
from s3_jax.references import MissingPartError

CONFIG_FILE = "config.json"
COMMIT_NOTE = "commit_success.txt"
FORMAT = "s3_jax model"
VERSION = 1
COPY_AGAIN = "copy or download the whole directory again"
# Written by orbax after the checksums are taken, and not needed for reading.
_UNRECORDED = (CONFIG_FILE, "_CHECKPOINT_METADATA", COMMIT_NOTE)


class CheckpointError(InputError):
    """Error for an unreadable or unwritable model checkpoint; it names the path and the fix."""


@dataclasses.dataclass(frozen=True)
class Header:
    """Content of config.json; `files` maps relative paths to (bytes, CRC-32)."""

    config: ModelConfig
    metadata: dict[str, Any]
    files: dict[str, tuple[int, int]]


@dataclasses.dataclass
class ModelSave(ocp.args.CheckpointArgs):
    """Arguments of `ModelHandler.save`; the fields are those of `save_model`."""

    config: ModelConfig
    variables: Variables
    metadata: Mapping[str, Any] | None = None
    dtype: Any = None


@dataclasses.dataclass
class ModelRestore(ocp.args.CheckpointArgs):
    """Arguments of `ModelHandler.restore`, which restores everything in host memory."""


class ModelHandler(ocp.AsyncCheckpointHandler):
    """Orbax handler of a model checkpoint: the arrays, and then config.json."""

    def __init__(self) -> None:
        self._arrays = ocp.PyTreeCheckpointHandler()
        self._saving: ModelSave | None = None

    def save(self, directory: os.PathLike[str], args: ModelSave) -> None:
        """Save a checkpoint in a directory."""
        self._arrays.save(directory, args=self._prepare(args))

    async def async_save(self, directory: os.PathLike[str], args: ModelSave) -> Any:
        """Start saving a checkpoint in a directory, and return orbax's futures."""
        return await self._arrays.async_save(directory, args=self._prepare(args))

    def finalize(self, directory: os.PathLike[str]) -> None:
        """Write config.json; orbax calls this on the first process when all arrays are on disk."""
        self._arrays.finalize(directory)
        assert self._saving is not None
        _write_header(Path(directory), self._saving.config, self._saving.metadata or {})
        self._saving = None

    def restore(
        self, directory: os.PathLike[str], args: ModelRestore | None = None
    ) -> tuple[ModelConfig, Variables]:
        """Return the configuration and the variables of a checkpoint.

        Raises:
          CheckpointError: the checkpoint is missing or damaged, or does not match its
            configuration.
        """
        directory = Path(directory)
        header = read_header(directory)
        check_files(directory, header)
        stored = self._arrays.metadata(directory).tree
        shapes = jax.tree.map(lambda array: tuple(array.shape), stored)
        if problems := _misfits(shapes, header.config):
            raise CheckpointError(f"{directory}: {listed(problems)}")
        plan = ocp.args.PyTreeRestore(restore_args=jax.tree.map(_as_float32, stored))
        variables = {"unused": {}} | self._arrays.restore(directory, args=plan)
        if problems := not_finite(flatten(variables)):
            raise CheckpointError(f"{directory}: {listed(problems)}")
        return header.config, variables

    def close(self) -> None:
        """Release the resources of the array handler."""
        self._arrays.close()

    def _prepare(self, args: ModelSave) -> ocp.args.PyTreeSave:
        variables = jax.tree.map(lambda x: x if isinstance(x, jax.Array) else np.asarray(x),
                                 dict(args.variables))  # fmt: skip
        problems = _misfits(jax.tree.map(np.shape, variables), args.config)
        if args.dtype is not None:
            problems += _overflows(variables, args.dtype)
        if problems:
            raise CheckpointError(listed(problems))
        if args.dtype is not None:
            variables = jax.tree.map(lambda x: _stored_as(x, args.dtype), variables)
        self._saving = dataclasses.replace(args, variables={})
        return ocp.args.PyTreeSave(variables)


ocp.args.register_with_handler(ModelHandler, for_save=True)(ModelSave)
ocp.args.register_with_handler(ModelHandler, for_restore=True)(ModelRestore)


def _as_float32(stored: Any) -> ocp.RestoreArgs:
    floating = jnp.issubdtype(stored.dtype, jnp.floating)
    return ocp.RestoreArgs(restore_type=np.ndarray, dtype=np.float32 if floating else None)


def _stored_as(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _overflows(variables: Variables, dtype: Any) -> list[str]:
    limit = float(jnp.finfo(dtype).max)
    return [
        f"{path} has values beyond {limit:g}, the maximum of {jnp.dtype(dtype)}: store float32"
        for path, x in flatten(variables).items()
        if jnp.issubdtype(x.dtype, jnp.floating) and abs(x).max(initial=0) > limit
    ]


def _misfits(shapes: Mapping[str, Any], config: ModelConfig) -> list[str]:
    """Return the differences between variables of these shapes and the network's variables."""
    try:
        expected = flatten(network_shapes(config))
    except InputError as error:
        return [str(error)]
    optional = {f"unused/{key}": shape for key, (shape, _) in unused_tensors(config).items()}
    found = flatten(shapes)
    prefix = f"params/{PROMPT_HEAD}/"
    if any(path.startswith(prefix) for path in found):
        optional |= {f"{prefix}{key}": shape for key, shape in prompt_head_shapes().items()}
    problems = [f"missing: {path} {shape}" for path, shape in expected.items() if path not in found]
    for path, shape in found.items():
        needed = expected.get(path, optional.get(path))
        if needed is None:
            problems.append(f"unknown: {path} {shape}")
        elif shape != needed:
            problems.append(f"wrong shape: {path} is {shape}, the configuration needs {needed}")
    return problems


def _write_header(directory: Path, config: ModelConfig, metadata: Mapping[str, Any]) -> None:
    content = {"format": FORMAT, "version": VERSION, "model": to_dict(config),
               "metadata": dict(metadata)}  # fmt: skip
    record_files(directory, CONFIG_FILE, content)


def record_files(directory: Path, name: str, content: Mapping[str, Any]) -> None:
    """Write a JSON file with `content` and the size and CRC-32 of all other files."""
    files = {_name(path, directory): path for path in sorted(directory.rglob("*"))}
    recorded = {
        other: "{} {:08x}".format(*_size_and_checksum(path))
        for other, path in files.items()
        if path.is_file() and other not in (*_UNRECORDED, name)
    }
    with replacing(directory / name) as temporary:
        temporary.write_text(json.dumps({**content, "files": recorded}, indent=1))


def check_recorded(directory: Path, name: str) -> dict[str, Any]:
    """Check all files against a file that `record_files` wrote, and return its content.

    Raises:
      CheckpointError: this file or one of the others is missing or damaged.
    """
    path = directory / name
    try:
        content = read_json(path)
        files = _recorded_files(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({reason(error)}); {COPY_AGAIN}") from error
    _check(directory, files)
    return content


def _recorded_files(content: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    entries = {name: entry.split() for name, entry in content["files"].items()}
    return {name: (int(size), int(crc, 16)) for name, (size, crc) in entries.items()}


def read_header(directory: Path) -> Header:
    """Read config.json.

    Raises:
      CheckpointError: it is damaged, does not belong to a model checkpoint, or was written by
        another version.
    """
    path = directory / CONFIG_FILE
    try:
        content = read_json(path)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise CheckpointError(f"{directory} is not a model checkpoint: its {path.name} is of "
                                  "something else")  # fmt: skip
        if content["version"] != VERSION:
            raise CheckpointError(f"{path} has version {content['version']}, but only {VERSION} "
                                  "can be read: update s3_jax")  # fmt: skip
        files = _recorded_files(content)
        return Header(_read_config(path, content["model"]), content["metadata"], files)
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({reason(error)}); {COPY_AGAIN}") from error


def _read_config(path: Path, values: dict[str, Any]) -> ModelConfig:
    try:
        return from_dict(ModelConfig, values)
    except MissingPartError as error:
        raise CheckpointError(f"{path}: this checkpoint's {error}") from error
    except ValueError as error:
        raise CheckpointError(
            f"{path}: {error}; unless it was edited, another version of s3_jax wrote it: update "
            "s3_jax"
        ) from error


def other_files(directory: Path, header: Header) -> list[str]:
    """Return the files in the directory that do not belong to the checkpoint."""
    own = {*header.files, *_UNRECORDED}
    files = (path for path in directory.rglob("*") if not path.is_dir())
    return sorted(name for path in files if (name := _name(path, directory)) not in own)


def _name(path: Path, directory: Path) -> str:
    return path.relative_to(directory).as_posix()


def check_files(directory: Path, header: Header) -> None:
    """Compare all files with the sizes and checksums of config.json.

    Raises:
      CheckpointError: files are missing or damaged; all are listed.
    """
    _check(directory, header.files)


def _check(directory: Path, files: Mapping[str, tuple[int, int]]) -> None:
    problems = list(_damaged_files(directory, files))
    if problems:
        raise CheckpointError(f"{directory}: {listed(problems)}; {COPY_AGAIN}")


def _damaged_files(directory: Path, files: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    for name, (size, checksum) in files.items():
        path = directory / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != size:
            yield f"{name} has {path.stat().st_size} bytes instead of {size}"
        elif _size_and_checksum(path)[1] != checksum:
            yield f"{name} is damaged"


def _size_and_checksum(path: Path) -> tuple[int, int]:
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return size, checksum
