"""One training step: a pure function of state and batch, which every replica runs.

    loss -> gradients, averaged over micro-batches and replicas -> optimizer -> next state

Replicas see different rows of the global batch and keep equal states: gradients and losses are
averaged over the axis that the trainer names, BatchNorm statistics by the network itself
(`S3.axis_name`).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array, Float, Int, Key

from s3_jax.models.layers import Axes
from s3_jax.ops.in_place import vary_like
from s3_jax.training.parameter_groups import Params, merge, split
from s3_jax.training.parts import Batch, Trainer, Variables
from s3_jax.training.state import Metrics, TrainState, base_key, step_key, zero_step

Step = Callable[..., tuple[TrainState, Metrics]]  # see `train_step`
# A function of values that all replicas share, and of rows; its result is equal on all replicas.
OfReplica = Callable[[Any, Any], Any]
OnReplicas = Callable[[OfReplica], OfReplica]
# The first averages are over about a tenth of the steps so far.
EMA_START = 9


def init_state(trainer: Trainer, variables: Variables, seed: int) -> TrainState:
    """Return the state before the first step.

    Args:
      variables: "params" and "batch_stats" of the network; other collections are ignored.
      seed: seed of the run; it and the step's number determine all random choices of a step.
    """
    params = jax.tree.map(jnp.asarray, dict(variables["params"]))
    trained, _ = split(params, trainer.trains)
    keep_average = trainer.ema_decay is not None
    return TrainState(
        step=zero_step(),
        params=params,
        batch_stats=jax.tree.map(jnp.asarray, dict(variables.get("batch_stats", {}))),
        opt_state=trainer.optimizer.init(trained),
        ema=jax.tree.map(jnp.copy, trained) if keep_average else None,
        rng=base_key(seed),
    )


def on_this_replica(function: OfReplica) -> OfReplica:
    """Return the function unchanged, where every replica runs the whole step."""
    return function


def train_step(
    trainer: Trainer, state: TrainState, batch: Batch, on_replicas: OnReplicas = on_this_replica
) -> tuple[TrainState, Metrics]:
    """Return the next state, and metrics to log.

    If the loss or the gradient is not finite, the whole state, including its step, is unchanged.

    Args:
      batch: this replica's rows, where every replica runs the step; otherwise those of all
        replicas, in order, and `on_replicas` distributes them.

    Returns:
      state: equal on all replicas if the given state was.
      metrics: float32 scalars, averaged over the global batch: losses by name, "grad_norm" before
        clipping, "learning_rate" if the trainer has a schedule, and "finite" (0 if the state is
        unchanged, else 1).
    """
    shared = state.replace(opt_state=(), ema=None)
    gradients, batch_stats, losses = on_replicas(functools.partial(_averages, trainer))(
        shared, batch
    )
    norm = optax.tree.norm(gradients)
    finite = jnp.isfinite(norm) & jnp.isfinite(losses["total"])
    updated = apply_gradients(trainer, state, gradients, batch_stats)
    rate = {} if trainer.schedule is None else {"learning_rate": trainer.schedule(state.step)}
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
    return state, losses | {"grad_norm": norm, "finite": finite.astype(jnp.float32)} | rate


@dataclasses.dataclass(eq=False)
class KeptProgram:
    """A step that keeps its program when it is traced, so that it need not be traced again.

    program: the step of one replica, or of all devices of a mesh; None before it is traced.
    rows: number of rows of its batch.
    """

    step: Step
    program: ClosedJaxpr | None = None
    rows: int = 0

    def __call__(
        self,
        trainer: Trainer,
        state: TrainState,
        batch: Any,
        on_replicas: OnReplicas = on_this_replica,
    ) -> Any:
        """Run the step."""
        step = jax.jit(functools.partial(self.step, trainer, on_replicas=on_replicas))
        self.program, self.rows = step.trace(state, batch).jaxpr, _row_count(batch)
        return step(state, batch)


def voting_step(
    trainer: Trainer,
    state: TrainState,
    batch: tuple[Batch, Float[Array, "b"]],
    on_replicas: OnReplicas = on_this_replica,
) -> tuple[TrainState, Metrics]:
    """Run `train_step` with a vote per row, and add the largest vote as the metric "votes".

    The maximum is over all replicas, so all processes see it at the same step.
    """
    rows, votes = batch
    state, metrics = train_step(trainer, state, rows, on_replicas)
    largest = on_replicas(functools.partial(_largest, trainer))((), votes)
    return state, metrics | {"votes": largest}


def gradients_of(
    trainer: Trainer, state: TrainState, batch: Batch, rows: Int[Array, "b"]
) -> tuple[Params, Params, Metrics]:
    """Return gradients of the trainable parameters, new BatchNorm statistics, and losses.

    With `accumulate`, equal micro-batches are processed in sequence: gradients and losses are
    averaged, and each micro-batch updates the BatchNorm statistics of the one before.

    Args:
      rows: indices of the batch's rows in the global batch.
    """
    key = step_key(state)
    parts = trainer.accumulate
    if parts == 1:
        return _gradients(trainer, state.params, state.batch_stats, batch, rows, key)
    micro_batches = jax.tree.map(functools.partial(_split_rows, parts=parts), (batch, rows))

    def add(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
        """Add the gradients and losses of one micro-batch to the totals."""
        (batch_stats, total), (part, its_rows) = carry, inputs
        gradients, batch_stats, losses = _gradients(
            trainer, state.params, batch_stats, part, its_rows, key
        )
        return (batch_stats, jax.tree.map(jnp.add, total, (gradients, losses))), None

    first = jax.tree.map(lambda x: x[0], micro_batches)
    shapes = jax.eval_shape(
        functools.partial(_gradients, trainer), state.params, state.batch_stats, *first, key
    )
    zeros = jax.tree.map(
        lambda x: vary_like(jnp.zeros(x.shape, x.dtype), rows), (shapes[0], shapes[2])
    )
    (batch_stats, total), _ = lax.scan(add, (state.batch_stats, zeros), micro_batches)
    gradients, losses = jax.tree.map(lambda x: x / parts, total)
    return gradients, batch_stats, losses


def apply_gradients(
    trainer: Trainer, state: TrainState, gradients: Params, batch_stats: Params
) -> TrainState:
    """Return the state after an optimizer step with these gradients."""
    trained, frozen = split(state.params, trainer.trains)
    updates, opt_state = trainer.optimizer.update(gradients, state.opt_state, trained)
    trained = optax.apply_updates(trained, updates)
    return state.replace(
        step=state.step + 1,
        params=merge(trained, frozen),
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema=_averaged(state.ema, trained, trainer.ema_decay, state.step),
    )


def _gradients(
    trainer: Trainer,
    params: Params,
    batch_stats: Params,
    batch: Batch,
    rows: Int[Array, "b"],
    key: Key[Array, ""],
) -> tuple[Params, Params, Metrics]:
    # Within `jax.shard_map`, derivatives of shared values would be summed over the replicas.
    params = jax.tree.map(lambda x: vary_like(x, rows), params)
    trained, frozen = split(params, trainer.trains)

    def loss(trained: Params) -> tuple[Array, tuple[Params, Metrics]]:
        """Return the loss as a function of the trainable parameters."""
        variables = {"params": merge(trained, frozen), "batch_stats": batch_stats}
        losses, stats = trainer.loss(variables, batch, rows, key)
        return losses["total"], (stats, losses)

    gradients, (stats, losses) = jax.grad(loss, has_aux=True)(trained)
    return gradients, stats, losses


def _averages(trainer: Trainer, shared: TrainState, batch: Batch) -> tuple[Params, Params, Metrics]:
    """Return gradients, BatchNorm statistics and losses of the rows of all replicas."""
    rows = _first_row(trainer.axis_name, batch) + jnp.arange(_row_count(batch))
    gradients, batch_stats, losses = gradients_of(trainer, shared, batch, rows)
    if trainer.axis_name is not None:
        gradients, losses = lax.pmean((gradients, losses), trainer.axis_name)
    return gradients, batch_stats, losses


def _largest(trainer: Trainer, shared: Any, values: Float[Array, "b"]) -> Float[Array, ""]:
    """Return the largest value of all replicas."""
    largest = jnp.max(values)
    return largest if trainer.axis_name is None else lax.pmax(largest, trainer.axis_name)


def _row_count(batch: Batch) -> int:
    return jax.tree.leaves(batch)[0].shape[0]


def _first_row(axis_name: Axes | None, batch: Batch) -> Int[Array, ""] | int:
    """Return the index of this replica's first row in the global batch."""
    return 0 if axis_name is None else lax.axis_index(axis_name) * _row_count(batch)


def _split_rows(x: Array, parts: int) -> Array:
    if x.shape[0] % parts:
        raise ValueError(
            f"a replica's batch of {x.shape[0]} cannot be split into {parts} equal micro-batches; "
            "change accumulate, or the batch size"
        )
    return x.reshape(parts, -1, *x.shape[1:])


def _averaged(
    ema: Params | None, params: Params, decay: float | None, step: Int[Array, ""]
) -> Params | None:
    """Return the next moving average.

    Early averages are over fewer steps, so that the initial values do not linger in them.
    """
    if ema is None or decay is None:
        return ema
    weight = jnp.maximum(1 - decay, EMA_START / (EMA_START + 1 + step))
    return jax.tree.map(lambda mean, new: mean + weight * (new - mean), ema, params)
