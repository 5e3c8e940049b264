"""Model checkpoints: a directory with a network's weights and the configuration they belong to.

    DIR/config.json        configuration, free-form metadata, size and CRC-32 of the other files
    DIR/manifest.ocdbt ... the arrays, as `orbax.checkpoint.PyTreeCheckpointHandler` lays them out

config.json is written last, hence a directory that has it is complete. Training writes the same
directory as one item, "model", of its steps, beside what else it keeps there:

    manager = ocp.CheckpointManager(
        WORKDIR / "checkpoints", item_handlers={"model": ModelHandler(), "training": ...})
    manager.save(step, args=ocp.args.Composite(model=ModelSave(config, variables), training=...))

so that WORKDIR/checkpoints/<step>/model can be copied anywhere and used, and
`load_model(WORKDIR)` finds the latest one.
"""

import dataclasses
import functools
import json
import os
import shutil
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
from s3_jax.conversion.weights import Variables, flatten, flax_shapes
from s3_jax.errors import InputError, listed

CONFIG_FILE = "config.json"
FORMAT = "s3_jax model"
VERSION = 1
ITEM = "model"
SHIPPED = Path(__file__).parent / "checkpoints"
_COPY_AGAIN = "copy or download the whole directory again"
# Written by orbax after our last look at the directory, and not needed to read it.
_COMMIT_NOTE = "commit_success.txt"
_UNRECORDED = (CONFIG_FILE, "_CHECKPOINT_METADATA", _COMMIT_NOTE)


class CheckpointError(InputError):
    """A model checkpoint cannot be read or written; the message names the path and the fix."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What config.json holds. files: relative path -> (bytes, CRC-32)."""

    config: ModelConfig
    metadata: dict[str, Any]
    files: dict[str, tuple[int, int]]


def save_model(
    path: str | os.PathLike[str],
    config: ModelConfig,
    variables: Variables,
    *,
    metadata: Mapping[str, Any] | None = None,
    dtype: Any = None,
) -> None:
    """Writes a model checkpoint, in place of one that is there already.

    At every moment `load_model(path)` gives the old checkpoint or the new one, also after the
    process was killed half-way.

    Args:
      path: the directory to make; missing parents are made.
      variables: {"params", "batch_stats", and optionally "unused"}, nested dictionaries of arrays.
      metadata: JSON values to keep in config.json.
      dtype: storage type of all floating point arrays (float32, bfloat16, float16); None keeps
        each array's own. `load_model` gives float32 in any case.

    Raises:
      CheckpointError: `path` is something else than a checkpoint, it cannot be written, or the
        variables do not fit the configuration or the storage type.
    """
    path = Path(path).resolve()
    new = _beside(path, "new")
    try:
        _refuse_other_content(path)
        _recover(path)
        _clear_unfinished(new)
        new.parent.mkdir(parents=True, exist_ok=True)
        with ocp.Checkpointer(ModelHandler()) as checkpointer:
            checkpointer.save(new, args=ModelSave(config, variables, metadata, dtype))
        (new / _COMMIT_NOTE).unlink()  # names the path `new`
        _replace(path, new)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be written ({_reason(error)}); check the path, its permissions and "
            "the free space"
        ) from error
    finally:
        _clear_unfinished(new)


def load_model(path_or_name: str | os.PathLike[str]) -> tuple[ModelConfig, Variables]:
    """Reads a model checkpoint.

    Args:
      path_or_name: what `find_model` takes.

    Returns:
      The configuration, and {"params", "batch_stats", "unused"}, nested dictionaries of NumPy
      arrays; floating point arrays are float32.

    Raises:
      CheckpointError: there is no checkpoint, it is damaged, or its arrays and configuration do
        not fit; in the last two cases every problem is listed.
    """
    directory = find_model(path_or_name)
    with ocp.Checkpointer(ModelHandler()) as checkpointer:
        return checkpointer.restore(directory, args=ModelRestore())


def read_header(path_or_name: str | os.PathLike[str]) -> Header:
    """Configuration, metadata and list of files of a model checkpoint, without its arrays.

    Raises:
      CheckpointError: there is no checkpoint or its config.json is damaged.
    """
    return _read_header(find_model(path_or_name))


def shipped_names() -> list[str]:
    """Names of the checkpoints that come with the package."""
    return sorted(path.name for path in SHIPPED.glob("*") if _is_model(path))


def find_model(path_or_name: str | os.PathLike[str]) -> Path:
    """The directory of a model checkpoint.

    Args:
      path_or_name: a checkpoint's directory; a training run's directory, or its `checkpoints`, of
        which the latest step is taken, or one step's directory; or, if there is no such path, the
        name of a checkpoint that comes with the package.

    Raises:
      CheckpointError: there is no checkpoint; the message says what was found instead.
    """
    path = Path(path_or_name)
    steps = (*_steps(path / "checkpoints"), *_steps(path))
    for candidate in (path, path / ITEM, *steps, _beside(path, "previous")):
        if _is_model(candidate):
            return candidate
    name = os.fspath(path_or_name)
    if not path.exists() and name in shipped_names():
        return SHIPPED / name
    raise CheckpointError(_why_no_model(path))


@dataclasses.dataclass
class ModelSave(ocp.args.CheckpointArgs):
    """What `ModelHandler` saves; the fields are those of `save_model`."""

    config: ModelConfig
    variables: Variables
    metadata: Mapping[str, Any] | None = None
    dtype: Any = None


@dataclasses.dataclass
class ModelRestore(ocp.args.CheckpointArgs):
    """`ModelHandler` restores everything, on the host, however it was saved."""


class ModelHandler(ocp.AsyncCheckpointHandler):
    """Orbax handler of a model checkpoint: the arrays, and config.json once they are complete."""

    def __init__(self) -> None:
        self._arrays = ocp.PyTreeCheckpointHandler()
        self._saving: ModelSave | None = None

    def save(self, directory: Path, args: ModelSave) -> None:
        self._arrays.save(directory, args=self._prepare(args))

    async def async_save(self, directory: Path, args: ModelSave) -> Any:
        return await self._arrays.async_save(directory, args=self._prepare(args))

    def finalize(self, directory: Path) -> None:
        """Called by orbax, on the first process only, when all arrays are on disk."""
        self._arrays.finalize(directory)
        assert self._saving is not None
        _write_header(Path(directory), self._saving.config, self._saving.metadata or {})
        self._saving = None

    def restore(
        self, directory: Path, args: ModelRestore | None = None
    ) -> tuple[ModelConfig, Variables]:
        directory = Path(directory)
        header = _read_header(directory)
        _raise_if(directory, list(_damaged_files(directory, header)))
        stored = self._arrays.metadata(directory).tree
        shapes = jax.tree.map(lambda array: tuple(array.shape), stored)
        _raise_if(directory, _misfits(shapes, header.config))
        plan = ocp.args.PyTreeRestore(restore_args=jax.tree.map(_as_float32, stored))
        return header.config, {"unused": {}} | self._arrays.restore(directory, args=plan)

    def close(self) -> None:
        self._arrays.close()

    def _prepare(self, args: ModelSave) -> ocp.args.PyTreeSave:
        variables = jax.tree.map(lambda x: x if isinstance(x, jax.Array) else np.asarray(x),
                                 dict(args.variables))  # fmt: skip
        problems = _misfits(jax.tree.map(np.shape, variables), args.config)
        if args.dtype is not None:
            problems += _overflows(variables, args.dtype)
            variables = jax.tree.map(lambda x: _stored_as(x, args.dtype), variables)
        if problems:
            raise CheckpointError(listed(problems))
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
        f"{path} has values beyond {limit:g}, the largest of {jnp.dtype(dtype)}: store float32"
        for path, x in flatten(variables).items()
        if jnp.issubdtype(x.dtype, jnp.floating) and abs(x).max(initial=0) > limit
    ]


def _misfits(shapes: Mapping[str, Any], config: ModelConfig) -> list[str]:
    """How variables of these shapes differ from those of the network."""
    try:
        expected = flatten(_network_shapes(config))
    except Exception as error:  # whatever a network without sense runs into while it is built
        return [f"no network can be built from the configuration ({_reason(error)})"]
    optional = {f"unused/{key}": shape for key, (shape, _) in unused_tensors(config).items()}
    found = flatten(shapes)
    problems = [f"missing: {path} {shape}" for path, shape in expected.items() if path not in found]
    for path, shape in found.items():
        needed = expected.get(path, optional.get(path))
        if needed is None:
            problems.append(f"unknown: {path} {shape}")
        elif shape != needed:
            problems.append(f"wrong shape: {path} is {shape}, the configuration needs {needed}")
    return problems


def _write_header(directory: Path, config: ModelConfig, metadata: Mapping[str, Any]) -> None:
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    recorded = {
        name: "{} {:08x}".format(*_size_and_checksum(path))
        for path in files
        if (name := path.relative_to(directory).as_posix()) not in _UNRECORDED
    }
    content = {"format": FORMAT, "version": VERSION, "model": to_dict(config),
               "metadata": dict(metadata), "files": recorded}  # fmt: skip
    temporary = directory / f"{CONFIG_FILE}.tmp"
    with temporary.open("w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(directory / CONFIG_FILE)


def _read_header(directory: Path) -> Header:
    path = directory / CONFIG_FILE
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise CheckpointError(f"{directory} is not a model checkpoint: {CONFIG_FILE} is of "
                                  "something else")  # fmt: skip
        if content["version"] != VERSION:
            raise CheckpointError(
                f"{path}: version {content['version']}, but only {VERSION} can be read: update "
                "s3_jax"
            )
        recorded = {name: entry.split() for name, entry in content["files"].items()}
        files = {name: (int(size), int(crc, 16)) for name, (size, crc) in recorded.items()}
        return Header(from_dict(ModelConfig, content["model"]), content["metadata"], files)
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({_reason(error)}); {_COPY_AGAIN}") from error


def _damaged_files(directory: Path, header: Header) -> Iterator[str]:
    """Orbax itself notices neither flipped bits nor all missing files."""
    for name, (size, checksum) in header.files.items():
        path = directory / name
        if not path.is_file():
            yield f"{name} is missing; {_COPY_AGAIN}"
        elif path.stat().st_size != size:
            yield f"{name} has {path.stat().st_size} bytes instead of {size}; {_COPY_AGAIN}"
        elif _size_and_checksum(path)[1] != checksum:
            yield f"{name} is damaged; {_COPY_AGAIN}"


def _size_and_checksum(path: Path) -> tuple[int, int]:
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return size, checksum


def _raise_if(directory: Path, problems: list[str]) -> None:
    if problems:
        raise CheckpointError(f"{directory}: {listed(problems)}")


def _reason(error: BaseException) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__


def _is_model(path: Path) -> bool:
    return (path / CONFIG_FILE).is_file()


def _steps(path: Path) -> list[Path]:
    """The model items of the steps that a training run left in `path`, latest first."""
    steps = (step for step in path.glob("*") if step.name.isdecimal())
    return [step / ITEM for step in sorted(steps, key=lambda step: int(step.name), reverse=True)]


def _why_no_model(path: Path) -> str:
    convert = "python -m tools.convert_checkpoint --input={} --output=DIRECTORY"
    if path.is_file():
        return (
            f"{path} is a file, but a checkpoint is a directory; a PyTorch or safetensors file is "
            f"made into one by: {convert.format(path)}"
        )
    if not path.exists():
        names = ", ".join(shipped_names()) or "none yet"
        return (
            f"{path}: there is no such directory, and no checkpoint of that name comes with "
            f"s3_jax (there are: {names})"
        )
    for file in sorted(path.glob("*")):
        if file.suffix in (".pth", ".pt", ".safetensors"):
            return (
                f"{path} is not a model checkpoint, but has {file.name}, which is made into one "
                f"by: {convert.format(file)}"
            )
    if (path / "manifest.ocdbt").exists():
        return f"{path} has arrays but no {CONFIG_FILE}: {_COPY_AGAIN}"
    return f"{path} is not a model checkpoint: there is no {CONFIG_FILE} in it"


def _refuse_other_content(path: Path) -> None:
    if path.is_dir() and (not any(path.iterdir()) or _is_model(path)):
        return
    if path.exists():
        raise CheckpointError("exists and is not a model checkpoint, hence was left as it is: "
                              "choose another path")  # fmt: skip


def _beside(path: Path, role: str) -> Path:
    path = path.absolute()
    return path.with_name(f".{path.name}.{role}")


def _replace(path: Path, new: Path) -> None:
    """Puts `new` at `path`. Directories cannot be exchanged in one step everywhere, so for a

    moment the old one is only at `previous`, where `find_model` looks too.
    """
    previous = _beside(path, "previous")
    if path.exists():
        path.rename(previous)
    new.rename(path)
    _remove(previous)


def _recover(path: Path) -> None:
    """Ends a replacement that was killed half-way."""
    previous = _beside(path, "previous")
    if path.exists():
        _remove(previous)
    elif _is_model(previous):
        previous.rename(path)


def _clear_unfinished(new: Path) -> None:
    parent = new.parent
    for path in parent.iterdir() if parent.is_dir() else ():
        if path.name == new.name or path.name.startswith(f"{new.name}.orbax-checkpoint-tmp"):
            _remove(path)


def _remove(path: Path) -> None:
    """Deletes a checkpoint so that it stops being one before it is incomplete."""
    (path / CONFIG_FILE).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


_network_shapes = functools.lru_cache(maxsize=8)(flax_shapes)  # building a network takes seconds
