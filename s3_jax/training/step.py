"""One training step: a pure function of state and batch, for one of any number of replicas.

    draw -> run_clip -> clip_losses -> gradients, averaged over micro-batches and replicas
         -> optimizer -> next state

Replicas see different rows of the global batch and keep equal states: gradients, losses and
BatchNorm statistics are averaged over the axis that the model names (`S3.axis_name`).
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, Key

from s3_jax.models.s3 import S3
from s3_jax.training.clip import ClipBatch, run_clip
from s3_jax.training.draws import Draws, draw
from s3_jax.training.losses import ChoosePoints, clip_losses, num_pairs
from s3_jax.training.optimizer import make_optimizer
from s3_jax.training.parameter_groups import Params, merge, split_frozen
from s3_jax.training.points import choose_points
from s3_jax.training.schedules import Schedule, learning_rate_schedule
from s3_jax.training.state import TrainState, base_key, step_key, zero_step
from s3_jax.training.step_config import StepConfig

# The first averages are over about a tenth of the steps so far.
EMA_START = 9
Metrics = dict[str, Float[Array, ""]]
Variables = dict[str, Any]
# (step's key, rows in the global batch, frames of a clip) -> random choices
DrawClip = Callable[[Array, Array, int], Draws]


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What every step computes with, and what never changes while training.

    draw_clip, choose_points: where chance comes in; replaced where choices are to be replayed.
    """

    model: S3
    config: StepConfig
    optimizer: optax.GradientTransformation
    schedule: Schedule
    draw_clip: DrawClip
    choose_points: ChoosePoints


def make_trainer(model: S3, config: StepConfig) -> Trainer:
    """The trainer of a model.

    Args:
      model: with `axis_name` set if the step runs on replicas; its dtype is the one computed in,
        its `trainable_blocks` the part of the ViT that is fine-tuned.

    Raises:
      ValueError: a network for single objects is to be trained with several.
    """
    slots = config.clip.num_objects
    if model.config.single_object and slots != 1:
        raise ValueError(f"num_objects is {slots}, but a single_object network needs 1")
    schedule = learning_rate_schedule(config.optimizer)
    return Trainer(
        model=model,
        config=config,
        optimizer=make_optimizer(config.optimizer, schedule, model),
        schedule=schedule,
        draw_clip=functools.partial(draw, pairs=num_pairs(model.config), config=config.clip),
        choose_points=functools.partial(choose_points, config.loss),
    )


def init_state(trainer: Trainer, variables: Variables, seed: int) -> TrainState:
    """The state before the first step.

    Args:
      variables: "params" and "batch_stats" of the network; other collections are ignored.
      seed: of the run; what is random in a step follows from it and from the step's number.
    """
    params = jax.tree.map(jnp.asarray, dict(variables["params"]))
    trained, _ = split_frozen(params, trainer.model)
    keep_average = trainer.config.ema_decay is not None
    return TrainState(
        step=zero_step(),
        params=params,
        batch_stats=jax.tree.map(jnp.asarray, dict(variables["batch_stats"])),
        opt_state=trainer.optimizer.init(trained),
        ema=jax.tree.map(jnp.copy, trained) if keep_average else None,
        rng=base_key(seed),
    )


def train_step(trainer: Trainer, state: TrainState, batch: ClipBatch) -> tuple[TrainState, Metrics]:
    """The next state, and what to log.

    If the loss or the gradient is not finite the state stays as it was, its step included.

    Args:
      batch: this replica's rows; the global batch is that of all replicas, in their order.

    Returns:
      state: equal on all replicas if it was before.
      metrics: float32 scalars, averaged over the global batch: losses by name (`clip_losses`),
        "grad_norm" before clipping, "learning_rate", and "finite" (1, or 0 if nothing was done).
    """
    rows = _first_row(trainer.model.axis_name, batch) + jnp.arange(batch.frames.shape[0])
    gradients, batch_stats, losses = gradients_of(trainer, state, batch, rows)
    if trainer.model.axis_name is not None:
        gradients, losses = lax.pmean((gradients, losses), trainer.model.axis_name)
    norm, rate = optax.tree.norm(gradients), trainer.schedule(state.step)
    finite = jnp.isfinite(norm) & jnp.isfinite(losses["total"])
    updated = apply_gradients(trainer, state, gradients, batch_stats)
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
    return state, losses | {
        "grad_norm": norm,
        "learning_rate": rate,
        "finite": finite.astype(jnp.float32),
    }


def gradients_of(
    trainer: Trainer, state: TrainState, batch: ClipBatch, rows: Int[Array, "b"]
) -> tuple[Params, Params, Metrics]:
    """Gradients of the parameters that train, BatchNorm statistics, and losses of some rows.

    With `config.accumulate`, micro-batches of equal size one after the other: their gradients
    and losses are averaged, and BatchNorm statistics move on from one to the next.
    """
    key = step_key(state)
    parts = trainer.config.accumulate
    if parts == 1:
        return _gradients(trainer, state.params, state.batch_stats, batch, rows, key)
    micro_batches = jax.tree.map(functools.partial(_split_rows, parts=parts), (batch, rows))

    def add(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
        (batch_stats, total), (part, its_rows) = carry, inputs
        gradients, batch_stats, losses = _gradients(
            trainer, state.params, batch_stats, part, its_rows, key
        )
        return (batch_stats, jax.tree.map(jnp.add, total, (gradients, losses))), None

    first = jax.tree.map(lambda x: x[0], micro_batches)
    shapes = jax.eval_shape(
        functools.partial(_gradients, trainer), state.params, state.batch_stats, *first, key
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (shapes[0], shapes[2]))
    (batch_stats, total), _ = lax.scan(add, (state.batch_stats, zeros), micro_batches)
    gradients, losses = jax.tree.map(lambda x: x / parts, total)
    return gradients, batch_stats, losses


def apply_gradients(
    trainer: Trainer, state: TrainState, gradients: Params, batch_stats: Params
) -> TrainState:
    """The state after an optimizer step."""
    trained, frozen = split_frozen(state.params, trainer.model)
    updates, opt_state = trainer.optimizer.update(gradients, state.opt_state, trained)
    trained = optax.apply_updates(trained, updates)
    return state.replace(
        step=state.step + 1,
        params=merge(trained, frozen),
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema=_averaged(state.ema, trained, trainer.config.ema_decay, state.step),
    )


def _gradients(
    trainer: Trainer,
    params: Params,
    batch_stats: Params,
    batch: ClipBatch,
    rows: Int[Array, "b"],
    key: Key[Array, ""],
) -> tuple[Params, Params, Metrics]:
    trained, frozen = split_frozen(params, trainer.model)
    draws = trainer.draw_clip(key, rows, batch.frames.shape[1])
    config = trainer.config

    def loss(trained: Params) -> tuple[Array, tuple[Params, Metrics]]:
        variables = {"params": merge(trained, frozen), "batch_stats": batch_stats}
        prediction, stats = run_clip(trainer.model, variables, config.clip, batch, draws)
        losses = clip_losses(prediction, batch, config.loss, draws.points, trainer.choose_points)
        return losses["total"], (stats, losses)

    gradients, (stats, losses) = jax.grad(loss, has_aux=True)(trained)
    return gradients, stats, losses


def _first_row(axis_name: str | None, batch: ClipBatch) -> Int[Array, ""] | int:
    """Row of the global batch that this replica's first item is."""
    return 0 if axis_name is None else lax.axis_index(axis_name) * batch.frames.shape[0]


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
    """The next average. Early on it is over fewer steps, so that it is not still of the initial
    values when the network has long left them."""
    if ema is None or decay is None:
        return ema
    weight = jnp.maximum(1 - decay, EMA_START / (EMA_START + 1 + step))
    return jax.tree.map(lambda mean, new: mean + weight * (new - mean), ema, params)
