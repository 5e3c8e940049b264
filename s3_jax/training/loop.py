"""Training: set up, restore, then steps, with measurements and checkpoints between them.

    Checkpoints.restore, or first_variables        where the run was left, or how it begins
    for every stage that is not done:
        state                                      restored, or new from the network so far
        for every step:  batch -> parallel_step
            every log_every steps                  losses leave the device; NaN and divergence stop
            every images_every steps               pictures of a clip
            every validation.every steps           J&F on the validation videos
            every save_every steps                 a checkpoint, in the background
        hand_over                                  the network goes on to the next stage

Everything that decides a step (parameters, optimizer, random key, place in the data) is in the
checkpoint, so that a run that was killed gives the same numbers as one that was not.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from absl import logging

from s3_jax.conversion.weights import Variables
from s3_jax.data.pipeline import Batch
from s3_jax.errors import InputError
from s3_jax.training import run_config, run_data
from s3_jax.training.checkpoints import Checkpoints, Record, resumed
from s3_jax.training.clip import ClipBatch
from s3_jax.training.parallel import parallel_step, replicate, shard_batch, unreplicate
from s3_jax.training.pictures import draw_clip
from s3_jax.training.progress import Journal, say
from s3_jax.training.run_config import RunConfig, StageConfig
from s3_jax.training.stages import first_variables, hand_over, stage_model, stage_trainer
from s3_jax.training.state import TrainState, evaluation_variables
from s3_jax.training.step import Trainer, init_state
from s3_jax.training.stopping import StopRequest
from s3_jax.training.validation import Validator
from s3_jax.training.window import Window, WindowSummary


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: steps of all stages that are done, whether it was asked to stop, and the
    last validation score."""

    step: int
    stopped: bool
    score: float | None


@dataclasses.dataclass(eq=False)
class StageStart:
    """A stage as it begins or goes on. step: how many of its steps are done."""

    number: int
    trainer: Trainer
    state: TrainState
    step: int


def train(run: RunConfig, workdir: Path, adopt: bool = False) -> Outcome:
    """Trains to the end, or to where SIGTERM or SIGINT asks it to stop; goes on where it was left.

    Args:
      workdir: for checkpoints, curves and the log; made if it is not there.
      adopt: go on although the directory was trained in with another configuration.

    Raises:
      InputError: the configuration, its data or its checkpoints cannot be used; training went
        wrong (the message names the file with the batch); or the disk is full.
    """
    run_data.claim(workdir, run, adopt)
    validator = Validator(run)
    with Checkpoints(workdir, run.keep) as checkpoints, StopRequest() as stop:
        start = _restore(run, checkpoints) or _begin(run)
        with Journal(workdir, run, run.first_step(start.number) + start.step) as journal:
            return _Run(run, workdir, checkpoints, stop, validator, journal).train(start)


def _restore(run: RunConfig, checkpoints: Checkpoints) -> StageStart | None:
    """Where the run was left; None if it has not begun."""
    restored = checkpoints.restore()
    if restored is None:
        return None
    record = restored.record
    number = [stage.name for stage in run.stages].index(record.stage)
    stage = run.stages[number]
    _tell_where(record, stage)
    trainer = stage_trainer(run, stage)
    state = resumed(restored, init_state(trainer, restored.variables, run.seed))
    return StageStart(number, trainer, replicate(state), record.stage_step)


def _tell_where(record: Record, stage: StageConfig) -> None:
    say(f"going on from step {record.stage_step} of stage {record.stage}")
    before = record.replicas, record.processes
    now = jax.device_count(), jax.process_count()
    if before != now:
        logging.warning(
            "so far this run was on %d devices of %d processes, now it is on %d of %d: the batches "
            "of %d clips stay the same and are spread anew, so that losses are equal to rounding, "
            "not to the bit",
            *before,
            *now,
            stage.batch_size,
        )


def _begin(run: RunConfig) -> StageStart:
    return _enter(run, 0, first_variables(run))


def _enter(run: RunConfig, number: int, variables: Variables) -> StageStart:
    """The beginning of a stage; all that is random in it follows from the run's seed."""
    trainer = stage_trainer(run, run.stages[number])
    state = init_state(trainer, variables, run.seed + number)
    return StageStart(number, trainer, replicate(state), 0)


class _Run:
    """What all stages of a run share."""

    def __init__(
        self,
        run: RunConfig,
        workdir: Path,
        checkpoints: Checkpoints,
        stop: StopRequest,
        validator: Validator,
        journal: Journal,
    ):
        self._run, self._workdir = run, workdir
        self._checkpoints, self._stop = checkpoints, stop
        self._validator, self._journal = validator, journal
        self._score: float | None = None

    def train(self, start: StageStart) -> Outcome:
        """All stages from `start` on."""
        run = self._run
        if start.step == 0 and start.number == 0 and run.validation.at_start:
            self._measure(start, start.state, 0)
        while True:
            state, step = self._stage(start)
            done = run.first_step(start.number) + step
            if step < run.stages[start.number].steps:
                return Outcome(done, True, self._score)
            if start.number + 1 == len(run.stages):
                return Outcome(done, False, self._score)
            start = self._hand_over(start, state)

    def _stage(self, start: StageStart) -> tuple[TrainState, int]:
        """The state after the stage's last step, or after the one it was asked to stop at."""
        stage = self._run.stages[start.number]
        state, step = start.state, start.step
        if step == stage.steps:
            return state, step
        self._journal.enter(stage)
        advance = parallel_step(start.trainer)
        window = Window(self._run.divergence)
        with run_data.batches(self._run, stage, step) as batches:
            while step < stage.steps:
                batch = self._next(batches, start, state, step, window)
                clips = shard_batch(clip_batch(batch))
                with jax.transfer_guard("disallow"):
                    state, metrics = advance(state, clips)
                window.add(metrics)
                step += 1
                self._journal.advance()
                self._show(start, state, batch, step)
                if self._after_step(start, state, step, window):
                    break
        return state, step

    def _next(
        self,
        batches: Iterator[Batch],
        start: StageStart,
        state: TrainState,
        step: int,
        window: Window,
    ) -> Batch:
        """The next batch; if there is none, since too much of the data is damaged, what has been
        learnt so far is saved first."""
        try:
            return next(batches)
        except InputError:
            if len(window):
                total = self._run.first_step(start.number) + step
                self._log(self._run.stages[start.number], window.close(step), total)
            if step:
                self._save(start, state, step, None)
            raise

    def _after_step(self, start: StageStart, state: TrainState, step: int, window: Window) -> bool:
        """Logs, measures and saves, whatever is due; returns whether to stop here."""
        run, stage = self._run, self._run.stages[start.number]
        total = run.first_step(start.number) + step
        last = step == stage.steps
        stop = self._agreed_stop(total, last)
        measure = self._validator.enabled and (last or step % run.validation.every == 0)
        save = last or stop or measure or total % run.save_every == 0
        if save or total % run.log_every == 0:
            self._log(stage, window.close(step), total)
            self._checkpoints.check()
        score = self._measure(start, state, total) if measure and not stop else None
        if save:
            self._save(start, state, step, score)
            window.restart()
        return stop

    def _agreed_stop(self, total: int, last: bool) -> bool:
        """Whether any process was asked to stop; several agree at the steps that are logged."""
        if jax.process_count() == 1:
            return self._stop.requested
        if total % self._run.log_every and not last:
            return False
        return run_data.any_process(self._stop.requested)

    def _log(self, stage: StageConfig, report: WindowSummary, total: int) -> None:
        self._journal.log(report, total)
        if report.bad_step is None:
            return
        file = self._workdir / f"bad_batch_{stage.name}_{report.bad_step}.npz"
        run_data.save_batch(self._run, stage, report.bad_step, file)
        saved = self._checkpoints.steps()
        raise InputError(
            f"step {report.bad_step} of stage {stage.name}: {report.problem}; its batch is in "
            f"{file}, the last checkpoint is of step {saved[-1] if saved else 'none'}; lower the "
            "learning rate or mend the data, and go on with --adopt_config"
        )

    def _show(self, start: StageStart, state: TrainState, batch: Batch, step: int) -> None:
        """Pictures of the batch's first clip, if they are due."""
        every, total = self._run.images_every, self._run.first_step(start.number) + step
        if every and total % every == 0 and jax.process_index() == 0:
            slots = start.trainer.config.clip.num_objects
            now = unreplicate(state)
            variables = {"params": now.params, "batch_stats": now.batch_stats}
            self._journal.show(draw_clip(start.trainer.model, variables, batch, slots), total)

    def _measure(self, start: StageStart, state: TrainState, total: int) -> float | None:
        """J&F on the validation videos, with averaged parameters if there are any."""
        if not self._validator.enabled:
            return None
        variables = evaluation_variables(unreplicate(state))
        stage = self._run.stages[start.number]
        result = self._validator.measure(stage_model(self._run, stage), variables, stage.dtype)
        self._score = result.overall.score
        self._journal.validated(result, total)
        return self._score

    def _save(self, start: StageStart, state: TrainState, step: int, score: float | None) -> None:
        run, stage = self._run, self._run.stages[start.number]
        record = Record(
            stage=stage.name,
            stage_step=step,
            step=run.first_step(start.number) + step,
            run=run_config.to_dict(run),
            processes=jax.process_count(),
            replicas=jax.device_count(),
            score=score,
        )
        self._checkpoints.save(stage_model(run, stage), unreplicate(state), record)

    def _hand_over(self, start: StageStart, state: TrainState) -> StageStart:
        """The next stage, from what this one has learnt, which is kept in `stages/`."""
        run, number = self._run, start.number + 1
        stage = run.stages[start.number]
        config = stage_model(run, stage)
        variables = jax.device_get(evaluation_variables(unreplicate(state)))
        kept = self._workdir / "stages" / stage.name
        self._checkpoints.export_model(run.first_step(number), kept)
        model = stage_model(run, run.stages[number])
        return _enter(run, number, hand_over(config, variables, model, run.seed))


def clip_batch(batch: Batch) -> ClipBatch:
    """What a step takes of a batch."""
    arrays: Any = (batch["frames"], batch["masks"], batch["num_objects"])
    return ClipBatch(*arrays)
