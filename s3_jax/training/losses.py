"""Losses of a clip: cross entropy and dice at sampled points, on masks and auxiliary logits.

Every pair of losses (masks, sensory memory, each level of the object transformer) samples its own
points in every frame. docs/propagation.md, section 5.3; paper section 4.1.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from s3_jax.config import ModelConfig
from s3_jax.training.clip import ClipBatch, ClipPrediction
from s3_jax.training.points import ABSENT, sample_labels, sample_map
from s3_jax.training.step_config import LossConfig

# (draw, logits c h w, num_objects) -> points p 2
ChoosePoints = Callable[[Any, Array, Array], Array]
# Keeps dice defined for an object that is neither present nor predicted.
DICE_SMOOTHING = 1.0


class Supervised(NamedTuple):
    """Logits that one pair of losses is computed on, with its name and weight in the total."""

    name: str
    logits: Float[Array, "f b c h w"]
    weight: float


def num_pairs(config: ModelConfig) -> int:
    """Return the number of loss pairs per frame: masks, sensory memory and transformer levels."""
    return 2 + config.num_blocks + 1


def clip_losses(
    prediction: ClipPrediction,
    batch: ClipBatch,
    config: LossConfig,
    draws: Any,
    choose_points: ChoosePoints,
) -> dict[str, Float[Array, ""]]:
    """Return weighted losses by name, summed over frames and averaged over items, and "total".

    Names are "<pair>_ce" and "<pair>_dice" for the pairs mask, sensory, query0, query1, ...;
    "total" is their sum.

    Args:
      draws: random draws per frame, item and pair of losses (leading axes f b p), for
        `choose_points`.
      choose_points: function that picks the points at which a pair of losses is evaluated in one
        frame of one item.
    """
    labels = jnp.swapaxes(batch.masks[:, 1:], 0, 1)
    losses: dict[str, Array] = {}
    for i, (name, logits, weight) in enumerate(_supervised(prediction, config)):
        pair = jax.vmap(  # over frames, then over items
            jax.vmap(_frame_losses, (None, 0, 0, 0, 0)), (None, 0, 0, None, 0)
        )
        own = jax.tree.map(lambda x, i=i: x[:, :, i], draws)
        ce, dice = pair(choose_points, logits, labels, batch.num_objects, own)
        losses[f"{name}_ce"] = weight * jnp.mean(jnp.sum(ce, axis=0))
        losses[f"{name}_dice"] = weight * jnp.mean(jnp.sum(dice, axis=0))
    return losses | {"total": sum(losses.values(), jnp.zeros(()))}


def _supervised(prediction: ClipPrediction, config: LossConfig) -> list[Supervised]:
    levels = jnp.moveaxis(prediction.query_logits, 3, 0)
    return [
        Supervised("mask", prediction.logits, 1.0),
        Supervised("sensory", prediction.sensory_logits, config.sensory_weight),
        *(Supervised(f"query{i}", level, config.query_weight) for i, level in enumerate(levels)),
    ]


def _frame_losses(
    choose_points: ChoosePoints,
    logits: Float[Array, "c h w"],
    labels: Integer[Array, "H W"],
    num_objects: Integer[Array, ""],
    draw: Any,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return cross entropy and dice of one frame of one item, over background and objects."""
    points = choose_points(draw, logits, num_objects)
    known = jnp.arange(logits.shape[0])[:, None] <= num_objects
    truth = sample_labels(labels, points, logits.shape[0])
    guess = jnp.where(known, sample_map(logits, points), ABSENT)
    return cross_entropy(guess, jnp.where(known, truth, 0.0)), dice(guess, truth, num_objects)


def cross_entropy(logits: Float[Array, "c p"], labels: Float[Array, "c p"]) -> Float[Array, ""]:
    """Return the cross entropy with soft labels, averaged over points."""
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits, axis=0), axis=0))


def dice(
    logits: Float[Array, "c p"], labels: Float[Array, "c p"], num_objects: Integer[Array, ""]
) -> Float[Array, ""]:
    """Return the dice loss averaged over the item's objects, or 0 if it has none.

    Class 0 is the background and does not count.
    """
    prob, truth = jax.nn.softmax(logits, axis=0)[1:], labels[1:]
    overlap = 2 * jnp.sum(prob * truth, axis=1)
    size = jnp.sum(prob, axis=1) + jnp.sum(truth, axis=1)
    loss = 1 - (overlap + DICE_SMOOTHING) / (size + DICE_SMOOTHING)
    known = jnp.arange(loss.shape[0]) < num_objects
    return jnp.sum(jnp.where(known, loss, 0.0)) / jnp.maximum(num_objects, 1)
