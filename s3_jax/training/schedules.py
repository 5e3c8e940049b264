"""Learning rates over the iterations (docs/propagation.md, sections 5.1 and 5.4)."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from s3_jax.training.step_config import OptimizerConfig

Schedule = Callable[[Integer[Array, ""] | int], Float[Array, ""]]


def learning_rate_schedule(config: OptimizerConfig) -> Schedule:
    """Base learning rate that is used at an iteration, counted from 0."""
    factors: dict[str, Schedule] = {
        "constant": lambda iteration: jnp.ones(()),
        "steps": lambda iteration: config.gamma ** _passed(config.milestones, iteration),
        "polynomial": lambda iteration: (
            jnp.maximum(1 - iteration / config.iterations, 0.0) ** config.power
        ),
    }
    factor = factors[config.decay]
    return lambda iteration: config.learning_rate * factor(iteration)


def _passed(milestones: Sequence[int], iteration: Integer[Array, ""] | int) -> Float[Array, ""]:
    reached = jnp.asarray(milestones, jnp.int32) <= iteration
    return jnp.sum(reached).astype(jnp.float32)
