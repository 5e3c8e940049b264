"""The parts of training, each an argument: what a loss, data, an evaluation or a callback is.

    loss(variables, batch, rows, key) -> losses by name, new BatchNorm statistics
    optimizer                            any optax.GradientTransformation
    data(step) -> batches                from a step on, without end
    evaluate(variables) -> Evaluation    a score and what else to log
    callback(step_done)                  after every step

`fit.fit` takes them. All but callbacks are functions of their arguments alone: whatever is random
in them follows from `rows` and `key`, or from `step`. That is what makes a run that was killed go
on with the same numbers as one that was not.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import optax
from jaxtyping import Array, Int, Key

from s3_jax.config import ModelConfig
from s3_jax.training.parameter_groups import Params, Path
from s3_jax.training.progress import Evaluation, Journal
from s3_jax.training.schedules import Schedule
from s3_jax.training.state import Metrics, TrainState

Variables = dict[str, Any]
Batch = Any  # a pytree of arrays whose first axis is the batch's rows
# The batches of this process from a step on, without end; closed when the stage is over.
Data = Callable[[int], Iterator[Batch]]
# {"params", "batch_stats"} on the host, averaged parameters where there is an average.
Evaluate = Callable[[Variables], Evaluation]


@runtime_checkable
class Loss(Protocol):
    """What a step minimises; a pure function that is differentiated and compiled."""

    def __call__(
        self, variables: Variables, batch: Batch, rows: Int[Array, "b"], key: Key[Array, ""]
    ) -> tuple[Metrics, Params]:
        """Return float32 scalars by name, and the new BatchNorm statistics.

        Args:
          variables: "params" and "batch_stats" of the network.
          batch: rows of a batch, those of one replica or micro-batch.
          rows: their numbers in the global batch. With `key` they decide what is random, so that
            it does not depend on how rows are spread over devices.
          key: of the step, the same on all replicas.

        Returns:
          losses: averaged over rows; "total" is what is minimised, the others are logged.
          batch_stats: those of `variables` if the network has none or they are frozen.
        """
        ...


def everything(path: Path) -> bool:
    """Train the parameter, wherever it is."""
    return True


def whole(batch: Batch) -> Batch:
    """Take all of a batch."""
    return batch


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What every step computes with, and what never changes while training.

    trains: which parameters train, by path; the others have no place in the optimizer's state.
    schedule: learning rate of a step, to be logged; None for none.
    accumulate, ema_decay: see `StepConfig`.
    axis_name: of the axis of replicas that gradients are averaged over; None for no such axis.
    """

    loss: Loss
    optimizer: optax.GradientTransformation
    trains: Callable[[Path], bool] = everything
    schedule: Schedule | None = None
    accumulate: int = 1
    ema_decay: float | None = None
    axis_name: str | None = None


@dataclasses.dataclass(frozen=True)
class StepDone:
    """What a callback is told after a step.

    stage, step: name of the stage, and steps of it that are done. total: of all stages.
    trainer, batch: of the step; the batch as `data` gave it. taken: what the step took of it.
    state: gives the state after the step, which the next step consumes: keep copies only.
    wait: returns when the devices are done with the step.
    journal: for pictures and numbers; silent on all processes but the first.
    """

    stage: str
    step: int
    total: int
    trainer: Trainer
    batch: Batch
    taken: Batch
    state: Callable[[], TrainState]
    wait: Callable[[], Any]
    journal: Journal


Callback = Callable[[StepDone], None]


@dataclasses.dataclass(frozen=True)
class Learnt:
    """A network as a stage left it."""

    model: ModelConfig
    variables: Variables


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """One stretch of training.

    model: the network's configuration, which checkpoints record.
    begin: variables that the stage starts from, given what the stage before left, if there was
      one. Called only where there is no checkpoint to go on from.
    evaluate: None for no evaluation.
    step_input: what a step takes of a batch, with rows first; all of it by default.
    """

    name: str
    steps: int
    model: ModelConfig
    begin: Callable[[Learnt | None], Variables]
    trainer: Trainer
    data: Data
    evaluate: Evaluate | None = None
    step_input: Callable[[Batch], Batch] = whole
