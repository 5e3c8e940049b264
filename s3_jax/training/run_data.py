"""The directory and the data of a run."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from s3_jax.data.config import DataConfig
from s3_jax.data.pipeline import Batches, make_pipeline
from s3_jax.errors import InputError, reason
from s3_jax.media.writers import replacing, write_json
from s3_jax.training import run_config
from s3_jax.training.clip import ClipBatch
from s3_jax.training.run_config import RunConfig, StageConfig

RECORD = "run.json"
# What may change between one start and the next, since it decides no number of a step.
_FREE = (
    "log_every",
    "images_every",
    "save_every",
    "keep",
    "divergence",
    "validation",
    "data_root",
    "max_skipped",
)
_FREE_OF_DATA = ("num_workers", "num_threads", "clips_ahead", "max_failing")


def claim(workdir: Path, run: RunConfig, adopt: bool) -> None:
    """Makes the directory, or sees that it is of this run.

    adopt: record this configuration in place of another one.

    Raises:
      InputError: it holds a run of another configuration; the message names what differs.
    """
    file = workdir / RECORD
    mine = run_config.to_dict(run)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if file.exists() and not adopt:
            _refuse_another(workdir, json.loads(file.read_text()), json.loads(json.dumps(mine)))
        if jax.process_index() == 0:
            write_json(file, mine)
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"{file}: {reason(error)}; choose another --workdir") from error


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


def claim_directory(workdir: Path, about: dict[str, Any]) -> None:
    """Makes the directory of a run of your own parts, or sees that it is of this one.

    Raises:
      InputError: it holds a run of another network or seed.
    """
    file = workdir / RECORD
    mine = json.loads(json.dumps(about))
    workdir.mkdir(parents=True, exist_ok=True)
    if file.exists():
        old, new = run_config.flat(json.loads(file.read_text())), run_config.flat(mine)
        for name in sorted(old | new):
            if old.get(name) != new.get(name):
                raise InputError(
                    f"{workdir} holds a run with another {name} ({old.get(name)}, now "
                    f"{new.get(name)}): choose another directory"
                )
    elif jax.process_index() == 0:
        write_json(file, mine)


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


def clip_batches(run: RunConfig, stage: StageConfig, step: int) -> Iterator[ClipBatch]:
    """The batches as a step takes them."""
    with batches(run, stage, step) as clips:
        for batch in clips:
            arrays: Any = (batch["frames"], batch["masks"], batch["num_objects"])
            yield ClipBatch(*arrays)


def data_config(run: RunConfig, stage: StageConfig) -> DataConfig:
    """The stage's data, with paths below the run's `data_root`."""
    if not run.data_root:
        return stage.data
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


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process; every process has to ask at the same step."""
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.array([flag])).any())


def _below(root: str, source: Any) -> Any:
    """A source with its paths below a directory; absolute ones stay."""
    names = [name for name in ("path", "backgrounds", "pictures") if getattr(source, name, "")]
    return dataclasses.replace(
        source, **{name: str(Path(root, getattr(source, name))) for name in names}
    )
