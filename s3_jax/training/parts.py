"""The parts of training, each an argument: loss, optimizer, data, evaluation and callbacks.

    loss(variables, batch, rows, key) -> losses by name, new BatchNorm statistics
    optimizer                            any optax.GradientTransformation
    data(step) -> batches                an endless iterator of batches from a step on
    evaluate(variables) -> Evaluation    a score and other values to log
    callback(step_done)                  called after every step

`fit.fit` takes them. All except callbacks depend only on their arguments: random choices follow
from `rows` and `key`, or from `step`. A run that was killed and resumed therefore produces the same
numbers as one that was not interrupted.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import optax
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array, Int, Key

from s3_jax.config import ModelConfig
from s3_jax.models.layers import Axes
from s3_jax.training.parameter_groups import Params, Path
from s3_jax.training.progress import Evaluation, Journal
from s3_jax.training.schedules import Schedule
from s3_jax.training.state import Metrics, TrainState

Variables = dict[str, Any]
Batch = Any  # a pytree of arrays whose first axis is the batch's rows
# Endless batches of this process from a step on; closed when the stage ends.
Data = Callable[[int], Iterator[Batch]]
# {"params", "batch_stats"} on the host, averaged parameters where there is an average.
Evaluate = Callable[[Variables], Evaluation]


@runtime_checkable
class Loss(Protocol):
    """Protocol of a step's loss: a pure function that JAX differentiates and compiles."""

    def __call__(
        self, variables: Variables, batch: Batch, rows: Int[Array, "b"], key: Key[Array, ""]
    ) -> tuple[Metrics, Params]:
        """Return float32 scalars by name, and the new BatchNorm statistics.

        Args:
          variables: "params" and "batch_stats" of the network.
          batch: rows of a batch, those of one replica or micro-batch.
          rows: the rows' indices in the global batch. Random choices depend only on them and on
            `key`, and so not on how rows are distributed over devices.
          key: the step's key, the same on all replicas.

        Returns:
          losses: averaged over rows; "total" is minimized, the others are logged.
          batch_stats: those of `variables` if the network has none or they are frozen.
        """
        ...


def everything(path: Path) -> bool:
    """Return True for every path, so that all parameters train."""
    return True


def whole(batch: Batch) -> Batch:
    """Return the batch unchanged."""
    return batch


@dataclasses.dataclass(frozen=True)
class Trainer:
    """The parts of a training step that never change during training.

    trains: predicate of trainable parameters, by path; the others have no optimizer state.
    schedule: learning rate per step, for logging; None for none.
    accumulate, ema_decay: see `StepConfig`.
    axis_name: axes of the replicas that gradients are averaged over; None for no replicas.
    """

    loss: Loss
    optimizer: optax.GradientTransformation
    trains: Callable[[Path], bool] = everything
    schedule: Schedule | None = None
    accumulate: int = 1
    ema_decay: float | None = None
    axis_name: Axes | None = None


@dataclasses.dataclass(frozen=True)
class StepDone:
    """Information passed to callbacks after a step.

    stage, step: name of the stage, and number of its steps done. total: steps done in all stages.
    trainer: the step's trainer. batch: its batch as `data` yielded it. taken: the part it used.
    state: returns the state after the step. The next step consumes it, so keep only copies.
    wait: blocks until the devices have finished the step.
    program: the traced step, for `program_rows` rows of a batch.
    journal: receives pictures and numbers; silent on all processes but the first.
    """

    stage: str
    step: int
    total: int
    trainer: Trainer
    batch: Batch
    taken: Batch
    state: Callable[[], TrainState]
    wait: Callable[[], Any]
    program: ClosedJaxpr
    program_rows: int
    journal: Journal


Callback = Callable[[StepDone], None]


@dataclasses.dataclass(frozen=True)
class Learnt:
    """Network at the end of a stage."""

    model: ModelConfig
    variables: Variables


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One stretch of training.

    model: the network's configuration, which checkpoints record.
    begin: returns the variables that the stage starts from, given the result of the previous stage,
      if there was one. Called only if there is no checkpoint to continue from.
    evaluate: None for no evaluation.
    step_input: selects the part of a batch that a step uses, with rows first; all of it by default.
    """

    name: str
    steps: int
    model: ModelConfig
    begin: Callable[[Learnt | None], Variables]
    trainer: Trainer
    data: Data
    evaluate: Evaluate | None = None
    step_input: Callable[[Batch], Batch] = whole
