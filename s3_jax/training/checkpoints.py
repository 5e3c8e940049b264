"""Checkpoints of a training run, in `WORKDIR/checkpoints/<step>/`.

    model/      a model checkpoint (`s3_jax.checkpoints.model`), with averaged parameters if any
    training/   optimizer state, random key and step counter, and the record in training.json

A checkpoint is written in the background under a temporary name and renamed once it is complete,
so a directory named after a step is always complete; checksums reveal later damage. A run resumes
from the latest checkpoint that can be read. No other module of training imports orbax.
"""

import contextlib
import dataclasses
import errno
import logging as python_logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint import checkpoint_managers as policies

from s3_jax.checkpoints.layout import CheckpointError, check_recorded, record_files
from s3_jax.checkpoints.model import (
    ITEM,
    ModelHandler,
    ModelSave,
    find_model,
    system_reason,
)
from s3_jax.config import ModelConfig
from s3_jax.errors import InputError, reason
from s3_jax.training.parallel import from_all_processes
from s3_jax.training.parameter_groups import Params, merge
from s3_jax.training.state import TrainState, evaluation_variables

FORMAT = "s3_jax training"
VERSION = 1
RECORD_FILE = "training.json"
DIRECTORY = "checkpoints"
TRAINING = "training"
WAITS = 50  # of 0.1 s each, for threads still writing to a deleted directory
Arrays = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Record:
    """Progress of a run at the time of a checkpoint.

    stage, stage_step: name of the stage, and number of its steps done, which is also the position
      in the stage's data.
    step: number of steps done in all stages; the checkpoint is named after it.
    run: the run's settings as JSON values, such as `run_config.to_dict` returns.
    processes, replicas: number of processes, and of devices over all processes.
    score: validation score at this step; None if it was not measured.
    skipped: number of steps so far whose loss or gradient was not finite.
    best_score, evaluations_since_best: best score of the stage so far, and number of evaluations
      since then.
    """

    stage: str
    stage_step: int
    step: int
    run: dict[str, Any]
    processes: int
    replicas: int
    score: float | None = None
    skipped: int = 0
    best_score: float | None = None
    evaluations_since_best: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Restored:
    """Contents of a checkpoint; `resumed` turns them into a training state."""

    record: Record
    config: ModelConfig
    variables: Params
    arrays: Arrays


@dataclasses.dataclass
class TrainingSave(ocp.args.CheckpointArgs):
    """Arguments to save with `TrainingHandler`: nested dictionaries of arrays, and a record."""

    arrays: Arrays
    record: Record


@dataclasses.dataclass
class TrainingRestore(ocp.args.CheckpointArgs):
    """Arguments to restore with `TrainingHandler`: all arrays, as NumPy arrays."""


class TrainingHandler(ocp.AsyncCheckpointHandler):
    """Orbax handler for the arrays that training needs besides the model, and for the record."""

    def __init__(self) -> None:
        self._arrays = ocp.PyTreeCheckpointHandler()
        self._record: Record | None = None

    def save(self, directory: os.PathLike[str], args: TrainingSave) -> None:
        """Write the arrays, and keep the record for `finalize`."""
        self._record = args.record
        self._arrays.save(directory, args=ocp.args.PyTreeSave(args.arrays))

    async def async_save(self, directory: os.PathLike[str], args: TrainingSave) -> Any:
        """Start writing the arrays in the background, and return orbax's futures for them."""
        self._record = args.record
        return await self._arrays.async_save(directory, args=ocp.args.PyTreeSave(args.arrays))

    def finalize(self, directory: os.PathLike[str]) -> None:
        """Write the record; orbax calls this on the first process once all arrays are on disk."""
        self._arrays.finalize(directory)
        assert self._record is not None
        content = {"format": FORMAT, "version": VERSION, "record": dataclasses.asdict(self._record)}
        record_files(Path(directory), RECORD_FILE, content)

    def restore(
        self, directory: os.PathLike[str], args: TrainingRestore | None = None
    ) -> tuple[Record, Arrays]:
        """Return the record, and all arrays as NumPy arrays.

        Raises:
          CheckpointError: a file is damaged, or another version of s3_jax wrote it.
        """
        directory = Path(directory)
        content = check_recorded(directory, RECORD_FILE)
        if (content.get("format"), content.get("version")) != (FORMAT, VERSION):
            raise CheckpointError(
                f"{directory / RECORD_FILE} was written by another version of s3_jax: resume with "
                "that version"
            )
        stored = self._arrays.metadata(directory).tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        plan = ocp.args.PyTreeRestore(restore_args=as_numpy)
        return Record(**content["record"]), self._arrays.restore(directory, args=plan)

    def close(self) -> None:
        """Release the resources of the handler for arrays."""
        self._arrays.close()


ocp.args.register_with_handler(TrainingHandler, for_save=True)(TrainingSave)
ocp.args.register_with_handler(TrainingHandler, for_restore=True)(TrainingRestore)


class Checkpoints:
    """Context manager for the checkpoints of one working directory.

    keep: number of latest checkpoints to keep, besides the one with the best score.
    """

    def __init__(self, workdir: Path, keep: int):
        self.directory = (workdir / DIRECTORY).absolute()
        self._aside = (workdir / "damaged").absolute()
        _tell_errors_once()
        self._manager = _told(self.directory, lambda: _open(self.directory, keep))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if error is None:
            self.wait()
        self._manager.close()

    def steps(self) -> list[int]:
        """Return the steps that have a complete checkpoint, in ascending order."""
        names = (path.name for path in self.directory.iterdir())
        return sorted(int(name) for name in names if name.isdecimal())

    def restore(self) -> Restored | None:
        """Return the latest checkpoint that can be read, or None if there are no checkpoints.

        On several processes, it is the latest one that all of them can read. Later checkpoints are
        moved to WORKDIR/damaged with a warning. Every process must call this method.

        Raises:
          InputError: there are checkpoints, but none can be read.
        """
        problems: list[str] = []
        steps = from_all_processes(self.steps())[0]
        for step in reversed(steps):
            restored, problem = self._attempt(step)
            found = [text for text in from_all_processes(problem) if text]
            if restored is not None and not found:
                self._set_aside([later for later in steps if later > step])
                return restored
            problems.append(found[0])
            logging.warning("checkpoint %d cannot be read: %s", step, found[0])
        if problems:
            raise InputError(
                f"{self.directory}: none of {len(problems)} checkpoints can be read; the latest: "
                f"{problems[0]}; remove the directory to start over"
            )
        return None

    def save(self, config: ModelConfig, state: TrainState, record: Record) -> None:
        """Copy the state from the devices, and save it in the background.

        Does nothing if the step already has a checkpoint.

        Raises:
          InputError: this checkpoint or the previous one could not be written.
        """
        args = ocp.args.Composite(**{
            ITEM: ModelSave(config, _on_host(evaluation_variables(state)),
                            {"step": record.step, "score": record.score}),
            TRAINING: TrainingSave(_on_host(_beside_the_model(state)), record),
        })  # fmt: skip
        metrics = None if record.score is None else _ranking(record)
        # The manager's list is the same on all hosts; the directory is not, if each has its own.
        if record.step not in self._manager.all_steps():
            self._told(lambda: self._manager.save(record.step, args=args, metrics=metrics))

    def best(self) -> int:
        """Wait for the disk, and return the step with the best score, or else the last step.

        Every process must call this method; the checkpoints need not be on all hosts.
        """
        self.wait()
        first = jax.process_index() == 0
        return from_all_processes(int(find_model(self.directory).parent.name) if first else 0)[0]

    def export_model(self, step: int, target: Path, replace: bool = False) -> None:
        """Copy a checkpoint's model to `target`, where it outlives the checkpoint.

        replace: overwrite an existing copy; otherwise an existing copy stays as it is.

        Raises:
          InputError: the copy could not be written.
        """
        self.wait()
        if jax.process_index() == 0 and replace:
            shutil.rmtree(target, ignore_errors=True)
        if jax.process_index() == 0 and not target.exists():
            self._told(lambda: _copy(self.directory / str(step) / ITEM, target))

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk.

        Raises:
          InputError: the checkpoint could not be written.
        """
        self._told(self._manager.wait_until_finished)

    def check(self) -> None:
        """Raise an InputError if saving in the background has failed."""
        self._told(self._manager.check_for_errors)

    def _attempt(self, step: int) -> tuple[Restored | None, str]:
        """Return a checkpoint and "", or None and the reason why it cannot be read."""
        try:
            return self._read(step), ""
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            return None, reason(error)

    def _read(self, step: int) -> Restored:
        # The manager would wait for the other hosts, of which some may have failed to read.
        place = self.directory / str(step)
        with (
            contextlib.closing(TrainingHandler()) as training,
            contextlib.closing(ModelHandler()) as model,
        ):
            record, arrays = training.restore(place / TRAINING)
            config, variables = model.restore(place / ITEM)
        return Restored(record, config, variables, arrays)

    def _set_aside(self, steps: list[int]) -> None:
        """Move checkpoints to WORKDIR/damaged, on the first host and then where they remain.

        Hosts that share the disk find nothing left to move; hosts with a disk each move their own.
        """
        if not steps:
            return
        for first in (True, False):
            if first == (jax.process_index() == 0):
                for step in steps:
                    _move(self.directory / str(step), self._aside / str(step))
            from_all_processes(None)  # wait for all
        logging.warning("moved checkpoints %s to damaged/ in the directory of the run", steps)
        self._manager.reload()

    def _told(self, action: Callable[[], Any]) -> Any:
        kept = f"; earlier checkpoints are intact: {self.steps() or 'none yet'}"
        return _told(self.directory, action, kept)


def resumed(restored: Restored, template: TrainState) -> TrainState:
    """Restore the training state of a checkpoint, bit for bit.

    Args:
      template: any state of the same network and optimizer.

    Raises:
      InputError: the checkpoint's arrays do not match those of the template.
    """
    raw = restored.arrays.get("raw_params")
    if (template.ema is None) != (raw is None):
        raise InputError(
            "the checkpoint and step.ema_decay disagree on whether to keep a parameter average"
        )
    params, ema = restored.variables["params"], None
    if raw is not None:  # the model holds the average instead of the trained parameters
        average = flatten_dict(params)
        ema = unflatten_dict({name: average[name] for name in flatten_dict(template.ema)})
        params = merge(params, raw)
    return dataclasses.replace(
        template,
        step=jnp.asarray(restored.arrays["step"]),
        params=jax.tree.map(jnp.asarray, params),
        batch_stats=jax.tree.map(jnp.asarray, restored.variables["batch_stats"]),
        opt_state=_like(template.opt_state, restored.arrays["opt_state"]),
        ema=jax.tree.map(jnp.asarray, ema),
        rng=jnp.asarray(restored.arrays["rng"]),
    )


def _ranking(record: Record) -> dict[str, float]:
    """Return the sort key that chooses the best checkpoint: latest stage, then highest score."""
    order = list(record.run.get("order", (record.stage,)))
    return {"stage": float(order.index(record.stage)), "score": record.score or 0.0}


def _open(directory: Path, keep: int) -> ocp.CheckpointManager:
    """Return a manager; opening it deletes the remains of unfinished saves.

    If a save of this process failed, orbax's threads may still be writing there, so wait for them.
    """
    for _ in range(WAITS):
        try:
            return _manager(directory, keep)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            time.sleep(0.1)
    return _manager(directory, keep)


def _manager(directory: Path, keep: int) -> ocp.CheckpointManager:
    # Orbax creates the directory on the first host only, but hosts need not share a disk.
    directory.mkdir(parents=True, exist_ok=True)
    latest = policies.LatestN(n=keep)
    best = policies.BestN(get_metric_fn=lambda metrics: (metrics.get("stage", 0), metrics["score"]),
                          n=1, keep_checkpoints_without_metrics=False)  # fmt: skip
    return ocp.CheckpointManager(
        directory,
        item_handlers={ITEM: ModelHandler(), TRAINING: TrainingHandler()},
        options=ocp.CheckpointManagerOptions(
            preservation_policy=policies.AnyPreservationPolicy([latest, best]),
            save_decision_policy=policies.FixedIntervalPolicy(1),
            cleanup_tmp_directories=True,
        ),
    )


def _copy(source: Path, target: Path) -> None:
    """Copy a directory atomically."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary)
    temporary.rename(target)


def _move(source: Path, target: Path) -> None:
    """Move a directory, if it exists, to where another one may be."""
    if source.exists():
        target.parent.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        source.rename(target)


def _told(directory: Path, action: Callable[[], Any], kept: str = "") -> Any:
    """Return the result of `action`; convert its errors to a one-line InputError."""
    try:
        return action()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{directory}: cannot write a checkpoint ({system_reason(error)}){kept}; free some "
            "space or fix the cause, then run the same command again to resume"
        ) from error


def _tell_errors_once() -> None:
    """Silence orbax's log messages about errors that it also raises.

    Orbax logs a traceback for each array it was writing, and its threads raise errors when they
    end. Silence lasts until the process ends, because writing continues in the background.
    """
    logger = logging.get_absl_logger()
    if not any(isinstance(known, _NotFromOrbax) for known in logger.filters):
        logger.addFilter(_NotFromOrbax())
        before = sys.unraisablehook
        sys.unraisablehook = lambda unraisable: (
            None if str(unraisable.exc_value) == "Event loop is closed" else before(unraisable)
        )


class _NotFromOrbax(python_logging.Filter):
    def filter(self, record: python_logging.LogRecord) -> bool:
        return "orbax" not in record.pathname or logging.get_verbosity() >= logging.INFO


def _beside_the_model(state: TrainState) -> Arrays:
    """Return the part of the state that `evaluation_variables` omits.

    It includes the trained parameters themselves if the model holds their average.
    """
    arrays = {"opt_state": _named(state.opt_state), "step": state.step, "rng": state.rng}
    if state.ema is not None:
        params, names = flatten_dict(state.params), flatten_dict(state.ema)
        arrays["raw_params"] = unflatten_dict({name: params[name] for name in names})
    return arrays


def _on_host(tree: Any) -> Any:
    """Copy arrays to the host, because the next step reuses their buffers."""
    return jax.tree.map(lambda x: np.array(x), tree)


def _named(tree: Any) -> Arrays:
    """Return the leaves of any pytree as nested dictionaries, keyed by their paths."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return unflatten_dict({_path(path): leaf for path, leaf in leaves})


def _like(template: Any, named: Mapping[str, Any]) -> Any:
    """Undo `_named`: return its leaves in the structure of `template`."""
    found = flatten_dict(dict(named))
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    shapes = {_path(path): np.shape(leaf) for path, leaf in leaves}
    differing = sorted(
        "/".join(name)
        for name in shapes.keys() | found.keys()
        if shapes.get(name) != (np.shape(found[name]) if name in found else None)
    )
    if differing:
        raise InputError(
            f"the checkpoint's optimizer state is for another network or optimizer: {differing[0]} "
            f"and {len(differing) - 1} more arrays differ"
        )
    return jax.tree.unflatten(structure, [jnp.asarray(found[_path(path)]) for path, _ in leaves])


def _path(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)
