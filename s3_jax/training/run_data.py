"""The directory and the data of a run."""

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

# What may change between one start and the next, since it decides no number of a step.
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
    """Makes the directory, or sees that it is of this run.

    adopt: record this configuration in place of another one, and go on after a problem.

    Raises:
      InputError: it holds a run of another configuration, and the message names what differs; or
        one that was stopped by a problem; or another process trains in it.
    """
    return claim_directory(workdir, run_config.to_dict(run), adopt, _refuse_another)


def claim_directory(
    workdir: Path,
    settings: dict[str, Any],
    adopt: bool = False,
    refuse: Callable[[Path, dict[str, Any], dict[str, Any]], None] | None = None,
) -> AbstractContextManager[object]:
    """Makes a training directory, or sees that it is of a run with these settings.

    Returns:
      What keeps other runs out of it until the block ends.

    refuse: raises an error if recorded and present settings are of different runs; by default if
      any differs.

    Raises:
      InputError: it holds another run, or one that was stopped by a problem, or another process
        trains in it.
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
                    f"{workdir}: training was stopped: {before['problem']}; once it is mended, go "
                    "on from the last checkpoint with --adopt_config"
                )
        if first:
            write_record(file, record)
        return held
    except InputError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{file}: {reason(error)}; choose another --workdir") from error


def note(workdir: Path, **facts: Any) -> None:
    """Adds facts to the record of a training directory, from the first process only."""
    if jax.process_index() == 0:
        write_record(workdir / NAME, read_record(workdir / NAME) | facts)


def _refuse_any(workdir: Path, theirs: dict[str, Any], mine: dict[str, Any]) -> None:
    if "model" in theirs:  # as this version writes it
        model = model_config.from_dict(ModelConfig, theirs["model"])
        theirs = theirs | {"model": json.loads(json.dumps(model_config.to_dict(model)))}
    for name, old, new in differences(run_config.flat(theirs), run_config.flat(mine)):
        raise InputError(
            f"{workdir} holds a run with another {name} ({old}, now {new}): choose another "
            "directory"
        )


def refuse_uneven_batches(run: RunConfig) -> None:
    """Raises an InputError if a stage's batch cannot be divided over devices and micro-batches."""
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
            f"{workdir} holds a run of another configuration: {changes}{more}: choose another "
            "--workdir, or give --adopt_config to go on with the new configuration"
        )


def _completed(values: dict[str, Any]) -> dict[str, Any]:
    """A recorded configuration, with what settings that are younger than it are by default."""
    try:
        return json.loads(json.dumps(run_config.to_dict(run_config.from_dict(values))))
    except InputError:  # of another version: settings that are gone are told as differences
        return values


def _identity(values: dict[str, Any]) -> dict[str, Any]:
    """What has to stay the same, flat."""
    kept = {key: value for key, value in values.items() if key not in _FREE}
    return {
        name: value
        for name, value in run_config.flat(kept).items()
        if name.rpartition(".")[2] not in _FREE_OF_DATA
    }


@contextlib.contextmanager
def batches(run: RunConfig, stage: StageConfig, step: int) -> Iterator[Batches]:
    """This process's part of the stage's batches, from a step on.

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
    """The stage's batches from a step on, until they are closed."""
    with batches(run, stage, step) as clips:
        yield from clips


def clip_batch(batch: Batch) -> ClipBatch:
    """What a step takes of a batch."""
    arrays: Any = (batch["frames"], batch["masks"], batch["num_objects"])
    return ClipBatch(*arrays)


def data_config(run: RunConfig, stage: StageConfig) -> DataConfig:
    """The stage's data, with paths below the run's `data_root`, on this machine."""
    sources = tuple(_below(run.data_root, source) for source in stage.data.sources)
    return dataclasses.replace(stage.data, sources=sources)


def save_batch(batch: Any, file: Path) -> None:
    """Writes this process's part of a batch, a pytree of arrays, as npz."""
    if jax.process_count() > 1:
        file = file.with_stem(f"{file.stem}_process{jax.process_index()}")
    leaves, _ = jax.tree_util.tree_flatten_with_path(batch)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **named)


def _below(root: str, source: Any) -> Any:
    """A source with its paths below a directory; absolute ones stay."""
    names = [name for name in PATHS if getattr(source, name, "")]
    places = {name: below(root, getattr(source, name), f"{source.kind}.{name}") for name in names}
    return dataclasses.replace(source, **{name: str(place) for name, place in places.items()})


def below(root: str, path: str, what: str) -> Path:
    """A path of a configuration on this machine: itself if it is absolute, else below `root`.

    Raises:
      InputError: it is in an object store, and cannot be fetched.
    """
    if is_remote(path) or Path(path).is_absolute():
        return fetched(path, what)
    return fetched(remote_path(root, "data_root") / path if is_remote(root) else Path(root, path))
