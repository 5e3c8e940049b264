"""Model checkpoints: directories with a network's weights and configuration.

`s3_jax.checkpoints.layout` describes their content. Training writes the same directory as the item
"model" of each of its checkpoints, next to the items that only training needs:

    manager = ocp.CheckpointManager(
        WORKDIR / "checkpoints", item_handlers={"model": ModelHandler(), "training": ...})
    manager.save(step, args=ocp.args.Composite(model=ModelSave(config, variables), training=...))

WORKDIR/checkpoints/<step>/model can therefore be copied anywhere and used. `load_model(WORKDIR)`
finds the one with the best validation score, or else the last one.
"""

import atexit
import contextlib
import logging as python_logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from absl import logging

from s3_jax.checkpoints import layout as checkpoint_layout
from s3_jax.checkpoints.by_name import published_model, published_names
from s3_jax.checkpoints.hub import hub_model, is_hub
from s3_jax.checkpoints.layout import (
    COMMIT_NOTE,
    CONFIG_FILE,
    COPY_AGAIN,
    CheckpointError,
    Header,
    ModelHandler,
    ModelRestore,
    ModelSave,
    other_files,
)
from s3_jax.config import ModelConfig
from s3_jax.errors import reason
from s3_jax.models.variables import Variables, flatten
from s3_jax.remote import Place, fetched, is_remote, remote_path, upload_directory

__all__ = [
    "CheckpointError",
    "Header",
    "ModelHandler",
    "ModelRestore",
    "ModelSave",
    "find_model",
    "load_model",
    "read_header",
    "save_model",
    "shipped_names",
    "stored_arrays",
    "system_reason",
]

ITEM = "model"
log = python_logging.getLogger("s3_jax")
# After an error, the writer's threads may keep adding files to the deleted directory for a while.
REMOVALS = 50
CALM = 5  # number of checks, a tenth of a second apart, that must find nothing
SHIPPED = Path(__file__).parent


def save_model(
    path: str | os.PathLike[str],
    config: ModelConfig,
    variables: Variables,
    *,
    metadata: Mapping[str, Any] | None = None,
    dtype: Any = None,
) -> None:
    """Write a model checkpoint, replacing an existing one.

    At every moment `load_model(path)` returns the old checkpoint or the new one, even if the
    process is killed during the replacement.

    Args:
      path: the directory to create, with missing parents.
      config: configuration of the network.
      variables: {"params", "batch_stats", and optionally "unused"}, nested dictionaries of arrays.
      metadata: JSON values to keep in config.json.
      dtype: storage type of all floating point arrays (float32, bfloat16, float16); None keeps each
        array's own. `load_model` always returns float32.

    Raises:
      CheckpointError: `path` exists and is not a checkpoint, it cannot be written, or the
        variables do not fit the configuration or the storage type.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory() as stage:
            local = Path(stage, "model")
            save_model(local, config, variables, metadata=metadata, dtype=dtype)
            upload_directory(local, remote_path(path))
        return
    path = Path(path).resolve()
    new = _beside(path, "new")
    try:
        _refuse_other_content(path)
        _recover(path)
        _clear_unfinished(new)
        new.parent.mkdir(parents=True, exist_ok=True)
        with _errors_told_once(), ocp.Checkpointer(ModelHandler()) as checkpointer:
            checkpointer.save(new, args=ModelSave(config, variables, metadata, dtype))
        (new / COMMIT_NOTE).unlink(missing_ok=True)  # it contains the temporary path `new`
        _replace(path, new)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        _outlast_writers(new)
        raise CheckpointError(
            f"{path}: cannot be written ({system_reason(error)}); check the path, its permissions "
            "and the free space"
        ) from error
    finally:
        _clear_unfinished(new)


def load_model(path_or_name: str | os.PathLike[str]) -> tuple[ModelConfig, Variables]:
    """Read a model checkpoint.

    Args:
      path_or_name: a path or name that `find_model` accepts.

    Returns:
      The configuration, and {"params", "batch_stats", "unused"}, nested dictionaries of NumPy
      arrays; floating point arrays are float32.

    Raises:
      CheckpointError: there is no checkpoint, it is damaged, or its arrays do not fit its
        configuration; in the last two cases every problem is listed.
    """
    directory = find_model(path_or_name).absolute()  # Orbax refuses relative paths
    with ocp.Checkpointer(ModelHandler()) as checkpointer:
        return checkpointer.restore(directory, args=ModelRestore())


def read_header(path_or_name: str | os.PathLike[str]) -> Header:
    """Return a model checkpoint's configuration, metadata and list of files, but no arrays.

    Raises:
      CheckpointError: there is no checkpoint or its config.json is damaged.
    """
    return checkpoint_layout.read_header(find_model(path_or_name))


def stored_arrays(path_or_name: str | os.PathLike[str]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return the shape and storage type of a checkpoint's arrays, by slash-separated path.

    Raises:
      CheckpointError: there is no checkpoint or it is damaged.
    """
    directory = find_model(path_or_name)
    checkpoint_layout.check_files(directory, checkpoint_layout.read_header(directory))
    tree = ocp.PyTreeCheckpointHandler().metadata(directory).tree
    return {name: (tuple(x.shape), str(x.dtype)) for name, x in flatten(tree).items()}


def shipped_names() -> list[str]:
    """Return the names of the checkpoints that come with the package."""
    return sorted(path.name for path in SHIPPED.glob("*") if _is_model(path))


def find_model(path_or_name: str | os.PathLike[str]) -> Path:
    """Return the directory of a model checkpoint.

    Args:
      path_or_name: the directory of a checkpoint, of a training run or its `checkpoints`, or of one
        of its steps. If there is no such path, the name of a checkpoint that comes with the
        package, or of a published one (`downloads.PUBLISHED`), which is downloaded when first used.
        It may also be an address on the Hugging Face Hub (hf://org/name) or a directory in an
        object store (gs://, s3://, az://), which is fetched. For a run, the step with the best
        validation score is used, among the steps of the network that it trained last; without
        validation, the last step is used. A log line names it.

    Raises:
      CheckpointError: there is no checkpoint; the message says what was found instead.
      InputError: a remote checkpoint cannot be downloaded.
    """
    if is_hub(path_or_name):
        return hub_model(path_or_name)
    if is_remote(path_or_name):
        return fetched(_find(remote_path(path_or_name, "the checkpoint")))
    return fetched(_find(Path(path_or_name)))


def _find(path: Place) -> Place:
    """Return the directory of a model checkpoint, as an `epath.Path` if it is in a store."""
    for candidate in (path, path / ITEM):
        if _is_model(candidate):
            return candidate
    if steps := _steps(path / "checkpoints") or _steps(path):
        return _best(path, steps)
    if _is_model(previous := _beside(path, "previous")):
        return previous
    name = os.fspath(path)
    if not path.exists() and name in shipped_names():
        return SHIPPED / name
    if not path.exists() and name in published_names():
        return published_model(name, save_model)
    raise CheckpointError(_why_no_model(path))


@contextlib.contextmanager
def _errors_told_once() -> Iterator[None]:
    """Silence the tracebacks that orbax logs for each array in addition to the error it raises.

    After an error the hook and the filter stay installed, because the writer's threads end and
    report later.
    """

    def is_news(entry: python_logging.LogRecord) -> bool:
        """Keep everything except errors from the database that orbax writes."""
        return "OCDBT" not in entry.getMessage()

    def hook(unraisable: Any) -> None:
        """Report everything except the end of orbax's event loops."""
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    before, sys.unraisablehook = sys.unraisablehook, hook
    futures = python_logging.getLogger("asyncio")
    futures.addFilter(is_news)
    level = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        yield
        sys.unraisablehook = before
        futures.removeFilter(is_news)
    finally:
        logging.set_verbosity(level)


def system_reason(error: Exception) -> str:
    """Return `errors.reason` without the details that TensorStore adds to its errors."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(found[1])) if found else reason(error)


def _is_model(path: Place) -> bool:
    return (path / CONFIG_FILE).is_file()


def _steps(path: Place) -> list[Place]:
    """Return the model items of a training run's steps in `path`, the latest first."""
    steps = (step for step in path.glob("*") if step.name.isdecimal())
    ordered = sorted(steps, key=lambda step: int(step.name), reverse=True)
    return [step / ITEM for step in ordered if _is_model(step / ITEM)]


def _best(run: Place, steps: list[Place]) -> Place:
    """Return the step of a run to use, and log the reason for the choice."""
    last, number = steps[0], int(steps[0].parent.name)
    scores = _scores(steps)
    if not scores:
        log.info("%s: using its last step, %d; it was not validated", run, number)
        return last
    best = max(scores, key=lambda step: scores[step])  # on ties, the latest
    log.info(
        "%s: using step %s, the best of %d validated steps (score %.3f); the last is %d",
        run, best.parent.name, len(scores), scores[best], number,
    )  # fmt: skip
    return best


def _scores(steps: list[Place]) -> dict[Place, float]:
    """Return the validation scores of the steps that trained the same network as the last step.

    An earlier stage may have trained a narrower network, for single objects.
    """
    headers = {step: header for step in steps if (header := _readable_header(step)) is not None}
    last = headers.get(steps[0])
    own = {step: x for step, x in headers.items() if last is not None and x.config == last.config}
    scores = {step: header.metadata.get("score") for step, header in own.items()}
    return {step: score for step, score in scores.items() if score is not None}


def _readable_header(step: Place) -> Header | None:
    try:
        return checkpoint_layout.read_header(fetched(step / CONFIG_FILE).parent)
    except CheckpointError:
        return None  # reported if this is the step that is loaded


def _why_no_model(path: Place) -> str:
    convert = "s3 convert --input={} --output=DIRECTORY"
    if path.is_file():
        return (
            f"{path} is a file, but a checkpoint is a directory; convert a PyTorch or safetensors "
            f"file with: {convert.format(path)}"
        )
    if not path.exists():
        return (
            f"{path}: there is no such file or directory, and no checkpoint of that name comes "
            f"with s3_jax (there are: {', '.join(shipped_names())}) or is downloaded "
            f"({', '.join(published_names())})"
        )
    for file in sorted(path.glob("*")):
        if file.suffix in (".pth", ".pt", ".safetensors"):
            return (
                f"{path} is not a model checkpoint, but has {file.name}; convert that with: "
                f"{convert.format(file)}"
            )
    if (path / "manifest.ocdbt").exists():
        return f"{path} has arrays but no {CONFIG_FILE}: {COPY_AGAIN}"
    return f"{path} is not a model checkpoint: it has no {CONFIG_FILE}"


def _refuse_other_content(path: Path) -> None:
    """Refuse to replace anything but a model checkpoint."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    try:
        strangers = other_files(path, checkpoint_layout.read_header(path))
    except CheckpointError as error:
        raise CheckpointError(
            "exists and is not a model checkpoint, so it was left unchanged: choose another path"
        ) from error
    if strangers:
        raise CheckpointError(
            f"has files besides the checkpoint's ({strangers[0]}), so it was left unchanged: move "
            "them or choose another path"
        )


def _beside(path: Any, role: str) -> Any:
    path = path.absolute()
    return path.parent / f".{path.name}.{role}"


def _replace(path: Path, new: Path) -> None:
    """Move `new` to `path`.

    Not every system can exchange directories atomically. In between, the old one is at `previous`,
    where `find_model` also looks.
    """
    previous = _beside(path, "previous")
    if path.exists():
        path.rename(previous)
    new.rename(path)
    _remove(previous)


def _recover(path: Path) -> None:
    """Finish a replacement that was interrupted halfway."""
    previous = _beside(path, "previous")
    if path.exists():
        _remove(previous)
    elif _is_model(previous):
        previous.rename(path)


def _clear_unfinished(new: Path) -> bool:
    """Delete the files of an unfinished save, and return True if there were any."""
    beside = new.parent.iterdir() if new.parent.is_dir() else ()
    temporary = f"{new.name}.orbax-checkpoint-tmp"
    unfinished = [x for x in beside if x.name == new.name or x.name.startswith(temporary)]
    for path in unfinished:
        _remove(path)
    return bool(unfinished)


def _outlast_writers(new: Path) -> None:
    """Delete the files that a failed save keeps writing, until it has stopped for a while.

    Files that it writes later are deleted when this process ends.
    """
    atexit.register(_clear_unfinished, new)
    calm = 0
    for _ in range(REMOVALS):
        calm = 0 if _clear_unfinished(new) else calm + 1
        if calm == CALM:
            return
        time.sleep(0.1)


def _remove(path: Path) -> None:
    """Delete a checkpoint so that it stops being recognized before it becomes incomplete."""
    (path / CONFIG_FILE).unlink(missing_ok=True)
    for _ in range(REMOVALS):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.1)
