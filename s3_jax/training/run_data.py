"""Working directory and data of a training run."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from s3_jax import config as model_config
from s3_jax.config import ModelConfig
from s3_jax.data.config import PATHS, DataConfig
from s3_jax.data.pipeline import Batch, Batches, make_pipeline
from s3_jax.errors import InputError, reason
from s3_jax.files import Lock, replacing
from s3_jax.media.run_json import NAME, differences, new_record, read_record, write_record
from s3_jax.remote import fetched, is_remote, refuse_remote, remote_path
from s3_jax.training import run_config
from s3_jax.training.clip import ClipBatch
from s3_jax.training.run_config import RunConfig, StageConfig

# Settings that may change when a run resumes, because they do not change the result of a step.
_FREE = (
    "log_every",
    "images_every",
    "save_every",
    "keep",
    "divergence",
    "validation",
    "data_root",
    "devices",
    "max_skipped",
)
_FREE_OF_DATA = ("num_workers", "num_threads", "clips_ahead", "max_failing")


def claim(workdir: Path, run: RunConfig, adopt: bool) -> AbstractContextManager[object]:
    """Create the working directory of a run, or check that an existing one belongs to this run.

    Args:
      adopt: replace the recorded configuration by this one, and resume after a problem.

    Returns:
      A context that keeps other runs out of the directory.

    Raises:
      InputError: the directory holds a run with another configuration (the message names the
        differences), or one that was stopped by a problem, or another process trains in it.
    """
    return claim_directory(workdir, run_config.to_dict(run), adopt, _refuse_another)


def claim_directory(
    workdir: Path,
    settings: dict[str, Any],
    adopt: bool = False,
    refuse: Callable[[Path, dict[str, Any], dict[str, Any]], None] | None = None,
) -> AbstractContextManager[object]:
    """Create a training directory, or check that an existing one has these settings.

    Args:
      settings: settings of the run as JSON values.
      adopt: replace the recorded settings by these, and resume after a problem.
      refuse: function of directory, recorded settings and present settings that raises an error
        if they belong to different runs; by default, if any setting differs.

    Returns:
      A context that keeps other runs out of the directory.

    Raises:
      InputError: the directory holds another run, or one that was stopped by a problem, or
        another process trains in it.
    """
    refuse_remote(workdir, "workdir")
    file, record = workdir / NAME, new_record("training", settings)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        first = jax.process_index() == 0
        held = Lock(workdir, "--workdir") if first else contextlib.nullcontext()
        if file.exists() and not adopt:
            before = read_record(file)
            (refuse or _refuse_any)(workdir, before["settings"], record["settings"])
            if before.get("problem"):
                raise InputError(
                    f"{workdir}: training was stopped: {before['problem']}; fix the cause, then "
                    "resume from the last checkpoint with --adopt_config"
                )
        if first:
            write_record(file, record)
        return held
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{file}: {reason(error)}; choose another --workdir") from error


def note(workdir: Path, **facts: Any) -> None:
    """Add facts to the record of a training directory, from the first process only."""
    if jax.process_index() == 0:
        write_record(workdir / NAME, read_record(workdir / NAME) | facts)


def _refuse_any(workdir: Path, theirs: dict[str, Any], mine: dict[str, Any]) -> None:
    if "model" in theirs:  # written by this version
        model = model_config.from_dict(ModelConfig, theirs["model"])
        theirs = theirs | {"model": json.loads(json.dumps(model_config.to_dict(model)))}
    for name, old, new in differences(run_config.flat(theirs), run_config.flat(mine)):
        raise InputError(
            f"{workdir} holds a run with another {name} ({old}, now {new}): choose another "
            "directory"
        )


def refuse_uneven_batches(run: RunConfig) -> None:
    """Refuse batch sizes that cannot be divided over devices and micro-batches.

    Raises:
      InputError: a stage has such a batch size; the message suggests others.
    """
    devices = jax.device_count()
    for stage in run.stages:
        parts = stage.step.accumulate
        if stage.batch_size % (devices * parts):
            unit = devices * parts
            least = stage.batch_size // unit * unit
            sizes = ", ".join(str(size) for size in (least, least + unit, least + 2 * unit) if size)
            over = f"{devices} devices" + (f" and {parts} micro-batches each" * (parts > 1))
            raise InputError(
                f"stage {stage.name}: a batch_size of {stage.batch_size} cannot be divided over "
                f"{over}: make it a multiple of {unit}, such as {sizes}"
            )


def _refuse_another(workdir: Path, theirs: dict[str, Any], mine: dict[str, Any]) -> None:
    old, new = _identity(_completed(theirs)), _identity(mine)
    differing = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
    if differing:
        changes = "; ".join(
            f"{name} was {old.get(name)}, now {new.get(name)}" for name in differing[:8]
        )
        more = f"; and {len(differing) - 8} more" if len(differing) > 8 else ""
        raise InputError(
            f"{workdir} holds a run with another configuration: {changes}{more}; choose another "
            "--workdir, or pass --adopt_config to continue with the new configuration"
        )


def _completed(values: dict[str, Any]) -> dict[str, Any]:
    """Add defaults to a recorded configuration for settings that are newer than the record."""
    try:
        return json.loads(json.dumps(run_config.to_dict(run_config.from_dict(values))))
    except InputError:  # from another version: removed settings are reported as differences
        return values


def _identity(values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that must not change when a run resumes, flattened."""
    kept = {key: value for key, value in values.items() if key not in _FREE}
    return {
        name: value
        for name, value in run_config.flat(kept).items()
        if name.rpartition(".")[2] not in _FREE_OF_DATA
    }


@contextlib.contextmanager
def batches(run: RunConfig, stage: StageConfig, step: int) -> Iterator[Batches]:
    """Yield this process's part of the stage's batches, from a step on.

    Raises:
      InputError: a data set is missing.
    """
    processes = jax.process_count()
    pipeline = make_pipeline(
        data_config(run, stage),
        batch_size=stage.batch_size // processes,
        host_index=jax.process_index(),
        host_count=processes,
        start_step=step,
    )
    with pipeline:
        yield pipeline


def clip_batches(run: RunConfig, stage: StageConfig, step: int) -> Iterator[Batch]:
    """Yield the stage's batches from a step on, until the generator is closed."""
    with batches(run, stage, step) as clips:
        yield from clips


def clip_batch(batch: Batch) -> ClipBatch:
    """Return the part of a batch that a training step uses."""
    arrays: Any = (batch["frames"], batch["masks"], batch["num_objects"])
    return ClipBatch(*arrays)


def data_config(run: RunConfig, stage: StageConfig) -> DataConfig:
    """Return the stage's data settings, with paths below `data_root` made local.

    Raises:
      InputError: a path is in an object store, and cannot be fetched.
    """
    sources = tuple(_below(run.data_root, source) for source in stage.data.sources)
    return dataclasses.replace(stage.data, sources=sources)


def save_batch(batch: Any, file: Path) -> None:
    """Write this process's part of a batch, a pytree of arrays, as npz.

    With several processes, the file's name ends in the index of the process.
    """
    if jax.process_count() > 1:
        file = file.with_stem(f"{file.stem}_process{jax.process_index()}")
    leaves, _ = jax.tree_util.tree_flatten_with_path(batch)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **named)


def _below(root: str, source: Any) -> Any:
    """Return a data source with its relative paths placed below `root`."""
    names = [name for name in PATHS if getattr(source, name, "")]
    places = {name: below(root, getattr(source, name), f"{source.kind}.{name}") for name in names}
    return dataclasses.replace(source, **{name: str(place) for name, place in places.items()})


def below(root: str, path: str, what: str) -> Path:
    """Return a local path for a path in a configuration; relative ones are below `root`.

    Args:
      what: name of the setting, for the message.

    Raises:
      InputError: the path is in an object store, and cannot be fetched.
    """
    if is_remote(path) or Path(path).is_absolute():
        return fetched(path, what)
    return fetched(remote_path(root, "data_root") / path if is_remote(root) else Path(root, path))
