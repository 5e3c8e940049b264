"""Training loop: restore or begin, then train every stage with the given parts.

The phases are named as in big_vision's train.py:

    restore           the latest checkpoint, or the beginning of the first stage
    for every stage that is not done:
        input pipeline        batches from the next step on
        train loop, for every step:
            update step       state, batch -> state, metrics
            callbacks         pictures, profiles, or any others
            training progress every log_every steps; stops on divergence or too many skipped steps
            evaluation        every evaluate_every steps
            checkpoint saving every save_every steps, in the background
        next stage            starts from the network that this stage trained

Checkpoints hold everything that determines a step (parameters, optimizer state, random key,
position in the data), so a run that was killed and resumed produces the same numbers as one that
was not interrupted.
"""

import collections
import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from absl import logging

from s3_jax.config import ModelConfig, to_dict
from s3_jax.errors import InputError
from s3_jax.training import run_data
from s3_jax.training.checkpoints import Checkpoints, Record, resumed
from s3_jax.training.parallel import Devices, devices_as, replica_axes
from s3_jax.training.parts import (
    Batch,
    Callback,
    Data,
    Evaluate,
    Learnt,
    Loss,
    Stage,
    StepDone,
    Trainer,
    Variables,
)
from s3_jax.training.progress import Evaluation, Journal, say
from s3_jax.training.run_config import Form
from s3_jax.training.state import TrainState, evaluation_variables
from s3_jax.training.step import KeptProgram, init_state, voting_step
from s3_jax.training.stopping import StopRequest
from s3_jax.training.summary_page import write_summary
from s3_jax.training.window import IN_FLIGHT, Window, WindowSummary


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Frozen settings of the training loop; none of them changes the result of a step.

    log_every, save_every, evaluate_every: number of steps between logged losses, checkpoints and
      evaluations. The last step of a stage is always logged, saved and evaluated.
    evaluate_first: evaluate before the first step too.
    keep_first: save the network of that evaluation as a checkpoint, which can be the best one.
    patience: end a stage after this many consecutive evaluations without a better score; 0 to
      never end it early.
    export_best: copy the network with the best score to WORKDIR/best at the end of the run.
    keep: number of latest checkpoints to keep, besides the one with the best score.
    divergence: stop if the mean loss since the last log exceeds the median of earlier means by
      this factor; 0 to never stop.
    max_skipped: number of steps of the run whose loss or gradient may be non-finite. Such steps
      are skipped; one more stops the run, as does one before any finite step.
    """

    log_every: int = 50
    save_every: int = 1_000
    evaluate_every: int = 5_000
    evaluate_first: bool = True
    keep_first: bool = False
    patience: int = 0
    export_best: bool = False
    keep: int = 3
    divergence: float = 10.0
    max_skipped: int = 10

    def __post_init__(self) -> None:
        for name in ("log_every", "save_every", "evaluate_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1")
        if self.patience < 0:
            raise ValueError(f"patience is {self.patience}, but must be 0 or more")


class TrainingError(InputError):
    """Error for training that diverges, or has too many non-finite steps.

    problem: description that is recorded in the working directory. The same command is refused
      after that.
    """

    def __init__(self, message: str, problem: str):
        super().__init__(message)
        self.problem = problem


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcome of a run.

    step: number of steps done in all stages.
    stopped: True if the run was asked to stop before its end.
    score: score of the last evaluation; None if there was none.
    """

    step: int
    stopped: bool
    score: float | None


@dataclasses.dataclass(frozen=True)
class Watch:
    """Best score of a stage so far, and number of evaluations since then."""

    best: float | None = None
    since_best: int = 0

    def after(self, score: float) -> "Watch":
        """Return the watch after one more evaluation."""
        if self.best is None or score > self.best:
            return Watch(score)
        return Watch(self.best, self.since_best + 1)


@dataclasses.dataclass(eq=False)
class Start:
    """Starting point of a stage, new or resumed.

    number: index of the stage, from 0.
    state: training state, not yet placed on the devices.
    step: number of the stage's steps that are done.
    skipped: number of the run's steps so far that were not finite.
    watch: best score of the stage so far.
    """

    number: int
    state: TrainState
    step: int
    skipped: int = 0
    watch: Watch = Watch()


def fit(
    workdir: Path,
    model: ModelConfig,
    variables: Variables,
    *,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    data: Data,
    steps: int,
    evaluate: Evaluate | None = None,
    callbacks: Sequence[Callback] = (),
    config: FitConfig = FitConfig(),
    seed: int = 0,
    devices: Form = "pmap",
    adopt: bool = False,
    **trainer: Any,
) -> Outcome:
    """Train a network with your own parts, resuming the run in `workdir` if there is one.

    Args:
      workdir: directory for checkpoints, curves and the log; created if it does not exist. Any
        command accepts it as `--checkpoint`.
      model: configuration of the network, which checkpoints record.
      variables: variables to start from, such as `initial_variables(model, seed)`.
      loss, data, evaluate, callbacks: see `s3_jax.training.parts`. A loss that runs the network
        should create it as `S3(model, axis_name=replica_axes(devices))`, so that BatchNorm sees the
        rows of all devices.
      optimizer: optimizer of the trainable parameters; an optax schedule in it counts its own
        steps.
      steps: number of steps of the whole run.
      seed: seed of all random choices in steps.
      devices: see `parallel`.
      adopt: resume even if the directory holds a run with another network or seed, or one that
        was stopped by a problem.
      trainer: further fields of `parts.Trainer`, such as `trains`, `ema_decay` or `accumulate`.

    Raises:
      InputError: the directory holds a run of another network, its checkpoints cannot be used,
        training failed, or the disk is full.
    """
    parts = Trainer(loss, optimizer, axis_name=replica_axes(devices), **trainer)
    stage = Stage("training", steps, model, lambda _: variables, parts, data, evaluate)
    about = {"model": to_dict(model), "seed": seed}
    with run_data.claim_directory(workdir, about, adopt):
        return run_stages(workdir, [stage], about, config, callbacks, seed, devices)


def run_stages(
    workdir: Path,
    stages: Sequence[Stage],
    about: dict[str, Any],
    config: FitConfig,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    devices: Form = "pmap",
) -> Outcome:
    """Train to the end of the last stage, or until SIGTERM or SIGINT.

    Args:
      about: the run's settings as JSON values, which checkpoints record.
      seed: seed of the first stage; later stages derive theirs from it.
      devices: see `parallel`; for "pmap", the stages' trainers and networks must name its axis.

    Raises:
      InputError: the data or the checkpoints cannot be used; training failed (the message names
        the file with the batch); or the disk is full.
    """
    with Checkpoints(workdir, config.keep) as checkpoints, StopRequest() as stop:
        start = restore(stages, checkpoints, seed) or begin(stages, 0, None, seed)
        total = sum(stage.steps for stage in stages)
        done = _first_step(stages, start.number) + start.step
        with Journal(workdir, total, done) as journal:
            shared = workdir, stages, about, config, callbacks, seed, devices_as(devices)
            run = _Run(*shared, checkpoints, stop, journal)
            try:
                outcome = run.fit(start)
            except TrainingError as error:
                run_data.note(workdir, problem=error.problem)
                run.write_page()
                raise
            run_data.note(workdir, finished=not outcome.stopped, steps=outcome.step)
            run.write_page()
            return outcome


def restore(stages: Sequence[Stage], checkpoints: Checkpoints, seed: int) -> Start | None:
    """Return the point from which the run can resume, or None if it has not begun.

    Raises:
      InputError: there are checkpoints, but none can be used.
    """
    restored = checkpoints.restore()
    if restored is None:
        return None
    record = restored.record
    number = [stage.name for stage in stages].index(record.stage)
    _tell_where(record)
    state = resumed(restored, init_state(stages[number].trainer, restored.variables, seed))
    watch = Watch(record.best_score, record.evaluations_since_best)
    return Start(number, state, record.stage_step, record.skipped, watch)


def begin(
    stages: Sequence[Stage], number: int, before: Learnt | None, seed: int, skipped: int = 0
) -> Start:
    """Return the beginning of a stage; the run's seed determines its random choices.

    Args:
      before: result of the previous stage; None for the first stage.
      skipped: number of the run's steps so far that were not finite.
    """
    stage = stages[number]
    state = init_state(stage.trainer, stage.begin(before), seed + number)
    return Start(number, state, 0, skipped)


def _tell_where(record: Record) -> None:
    say(f"going on from step {record.stage_step} of stage {record.stage}")
    before = record.replicas, record.processes
    now = jax.device_count(), jax.process_count()
    if before != now:
        logging.warning(
            "so far this run was on %d devices of %d processes, now it is on %d of %d: the batches "
            "stay the same but are divided differently, so losses match only up to rounding",
            *before,
            *now,
        )


def _first_step(stages: Sequence[Stage], number: int) -> int:
    """Return the number of steps in all stages before stage `number`."""
    return sum(stage.steps for stage in stages[:number])


class _Run:
    """Training loop of a run, with everything that its stages share."""

    def __init__(
        self,
        workdir: Path,
        stages: Sequence[Stage],
        about: dict[str, Any],
        config: FitConfig,
        callbacks: Sequence[Callback],
        seed: int,
        devices: Devices,
        checkpoints: Checkpoints,
        stop: StopRequest,
        journal: Journal,
    ):
        self._workdir, self._stages, self._about = workdir, stages, about
        self._config, self._callbacks, self._seed = config, callbacks, seed
        self._devices = devices
        self._checkpoints, self._stop, self._journal = checkpoints, stop, journal
        self._score: float | None = None
        self._skipped = 0
        self._watch = Watch()
        self._votes: collections.deque[jax.Array] = collections.deque(maxlen=IN_FLIGHT + 1)

    def fit(self, start: Start) -> Outcome:
        """Train all stages from `start` on."""
        self._skipped = start.skipped
        while True:
            stage, self._watch = self._stages[start.number], start.watch
            state = self._devices.put_state(start.state)
            if start.step == 0 and start.number == 0 and self._config.evaluate_first:
                self._measure_first(stage, state)
            state, step = self._train_loop(start, state)
            done = _first_step(self._stages, start.number) + step
            if step < stage.steps and not self._exhausted(stage):
                return Outcome(done, True, self._score)
            if start.number + 1 == len(self._stages):
                self._export_best()
                return Outcome(done, False, self._score)
            start = self._next_stage(start.number, state, done)

    def _measure_first(self, stage: Stage, state: TrainState) -> None:
        score = self._evaluate(stage, state, 0)
        if self._config.keep_first and score is not None:
            self._save(stage, state, 0, 0, score)

    def _exhausted(self, stage: Stage) -> bool:
        """Return True if the stage ends early because its score no longer rises."""
        patience = self._config.patience
        return 0 < patience <= self._watch.since_best and stage.evaluate is not None

    def _export_best(self) -> None:
        """Copy the network with the best score to WORKDIR/best, if configured."""
        if self._config.export_best:
            best = self._checkpoints.best()
            self._checkpoints.export_model(best, self._workdir / "best", replace=True)
            say(f"exported the best step, {best}, as best/ in the directory of the run")

    def _train_loop(self, start: Start, state: TrainState) -> tuple[TrainState, int]:
        """Train a stage; return the state and step where it ended or was asked to stop."""
        stage, first = self._stages[start.number], _first_step(self._stages, start.number)
        step = start.step
        if step == stage.steps or self._exhausted(stage):
            return state, step
        self._journal.enter(stage.name)
        kept = KeptProgram(voting_step)
        update = self._devices.update(stage.trainer, kept)
        self._votes.clear()
        window = Window(self._config.divergence)
        with _input_pipeline(stage, step) as batches:
            while step < stage.steps:
                batch = self._next_batch(batches, stage, state, step, first, window)
                taken = stage.step_input(batch)
                placed = self._devices.put_batch((taken, self._vote(taken)))
                with jax.transfer_guard("disallow"), _named_step(first + step):
                    state, metrics = update(state, placed)
                self._votes.append(metrics.pop("votes"))
                window.add(metrics, _frames(taken))
                step += 1
                self._journal.advance()
                self._call_back(stage, state, batch, taken, step, first + step, kept)
                if self._after_step(stage, state, step, first + step, window):
                    break
        return state, step

    def _vote(self, batch: Batch) -> np.ndarray:
        """Return this process's vote to stop (1 or 0), repeated for every row of the batch."""
        return np.full(jax.tree.leaves(batch)[0].shape[0], float(self._stop.requested), np.float32)

    def _call_back(
        self,
        stage: Stage,
        state: TrainState,
        batch: Batch,
        taken: Batch,
        step: int,
        total: int,
        kept: KeptProgram,
    ) -> None:
        assert kept.program is not None  # the step was run
        done = StepDone(
            stage.name, step, total, stage.trainer, batch, taken,
            functools.partial(self._devices.get, state),
            functools.partial(jax.block_until_ready, state), kept.program, kept.rows, self._journal,
        )  # fmt: skip
        for callback in self._callbacks:
            callback(done)

    def _next_batch(
        self,
        batches: Iterator[Batch],
        stage: Stage,
        state: TrainState,
        step: int,
        first: int,
        window: Window,
    ) -> Batch:
        """Return the next batch; if there is none, save the state and raise an InputError."""
        try:
            with window.waiting():
                return next(batches)
        except (InputError, StopIteration) as error:
            if len(window):
                self._training_progress(stage, window.close(step), first + step, state)
            if step:
                self._save(stage, state, step, first + step, None)
            if isinstance(error, StopIteration):
                raise InputError(
                    f"stage {stage.name}: the data end after {step} of {stage.steps} steps: "
                    "make the data repeat, or train for fewer steps"
                ) from error
            raise

    def _after_step(
        self, stage: Stage, state: TrainState, step: int, total: int, window: Window
    ) -> bool:
        """Log, evaluate and save if due; return True to stop here."""
        config, last = self._config, step == stage.steps
        stop = self._agreed_stop(last)
        evaluate = stage.evaluate is not None and (last or step % config.evaluate_every == 0)
        save = last or stop or evaluate or total % config.save_every == 0
        if save or total % config.log_every == 0:
            self._training_progress(stage, window.close(step), total, state)
            self._checkpoints.check()
        score = self._evaluate(stage, state, total) if evaluate and not stop else None
        if save:
            self._save(stage, state, step, total, score)
            window.restart()
        if not last and not stop and self._exhausted(stage):
            say(f"ending the stage: no better score in {self._watch.since_best} evaluations")
            return True
        return stop

    def _agreed_stop(self, last: bool) -> bool:
        """Return True if any process was asked to stop.

        Processes agree without waiting for one another: every step carries their votes, and they
        act on the votes of a step that the devices have finished.
        """
        if jax.process_count() == 1:
            return self._stop.requested
        return not last and len(self._votes) > IN_FLIGHT and float(self._votes[0]) > 0

    def _training_progress(
        self, stage: Stage, summary: WindowSummary, total: int, state: TrainState
    ) -> None:
        self._journal.log(summary, total)
        self._skipped += summary.skipped
        if summary.bad_step is None:
            return
        file = self._workdir / f"bad_batch_{stage.name}_{summary.bad_step}.npz"
        with _input_pipeline(stage, summary.bad_step) as again:
            run_data.save_batch(next(again), file)
        where = f"step {summary.bad_step} of stage {stage.name}: {summary.problem}"
        learnt = int(self._devices.get(state.step)) > 0
        if summary.skipped and learnt and self._skipped <= self._config.max_skipped:
            logging.warning(
                "%s; it was skipped, and its batch is in %s (%d skipped so far, of at most %d)",
                where, file, self._skipped, self._config.max_skipped,
            )  # fmt: skip
            return
        saved = self._checkpoints.steps()
        raise TrainingError(
            f"{where}; its batch is in {file}; step of the last checkpoint: "
            f"{saved[-1] if saved else 'none'}; lower the learning rate or fix the data, then "
            "resume with --adopt_config",
            where,
        )

    def _evaluate(self, stage: Stage, state: TrainState, total: int) -> float | None:
        """Return the score, with averaged parameters if there are any."""
        if stage.evaluate is None:
            return None
        result: Evaluation = stage.evaluate(evaluation_variables(self._devices.get(state)))
        self._score = result.score
        self._watch = self._watch.after(result.score)
        self._journal.evaluated(result, total)
        return self._score

    def _save(
        self, stage: Stage, state: TrainState, step: int, total: int, score: float | None
    ) -> None:
        record = Record(
            stage=stage.name,
            stage_step=step,
            step=total,
            run=self._about,
            processes=jax.process_count(),
            replicas=jax.device_count(),
            score=score,
            skipped=self._skipped,
            best_score=self._watch.best,
            evaluations_since_best=self._watch.since_best,
        )
        self._checkpoints.save(stage.model, self._devices.get(state), record)
        self.write_page()

    def write_page(self) -> None:
        """Write the run's summary page, from the first process only."""
        if jax.process_index() == 0:
            write_summary(self._workdir, _first_step(self._stages, len(self._stages)))

    def _next_stage(self, number: int, state: TrainState, done: int) -> Start:
        """Save this stage's network in WORKDIR/stages, and return the start of the next stage."""
        stage = self._stages[number]
        variables = jax.device_get(evaluation_variables(self._devices.get(state)))
        kept = self._workdir / "stages" / stage.name
        self._checkpoints.export_model(done, kept)
        learnt = Learnt(stage.model, variables)
        return begin(self._stages, number + 1, learnt, self._seed, self._skipped)


def _frames(batch: Batch) -> int:
    """Return the number of frames of a step in all processes, or of rows if it has no frames."""
    frames = getattr(batch, "frames", None)
    rows = jax.tree.leaves(batch)[0].shape[0]
    count = rows if frames is None else rows * frames.shape[1]
    return count * jax.process_count()


def _named_step(number: int) -> contextlib.AbstractContextManager[None]:
    """Return a context that names a step in profiles."""
    return jax.profiler.StepTraceAnnotation("train", step_num=number)


@contextlib.contextmanager
def _input_pipeline(stage: Stage, step: int) -> Iterator[Iterator[Batch]]:
    """Yield the stage's batches from a step on, and close them at the end if possible."""
    batches = iter(stage.data(step))
    try:
        yield batches
    finally:
        if hasattr(batches, "close"):
            batches.close()
