"""Learning rate schedules (docs/propagation.md, sections 5.1 and 5.4)."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from s3_jax.training.step_config import OptimizerConfig

Schedule = Callable[[Integer[Array, ""] | int], Float[Array, ""]]


def learning_rate_schedule(config: OptimizerConfig) -> Schedule:
    """Return a function from iteration, counted from 0, to base learning rate."""
    factors: dict[str, Schedule] = {
        "constant": lambda iteration: jnp.ones(()),
        "steps": lambda iteration: config.gamma ** _passed(config.milestones, iteration),
        "polynomial": lambda iteration: (
            jnp.maximum(1 - iteration / config.iterations, 0.0) ** config.power
        ),
    }
    factor = factors[config.decay]
    if not config.warm_up:
        return lambda iteration: config.learning_rate * factor(iteration)
    return lambda iteration: (
        config.learning_rate * factor(iteration) * _warmth(iteration, config.warm_up)
    )


def _warmth(iteration: Integer[Array, ""] | int, warm_up: int) -> Float[Array, ""]:
    """Return a factor that rises linearly from 1 / warm_up (so that the first step counts) to 1."""
    return jnp.minimum((jnp.asarray(iteration) + 1) / warm_up, 1.0)


def _passed(milestones: Sequence[int], iteration: Integer[Array, ""] | int) -> Float[Array, ""]:
    reached = jnp.asarray(milestones, jnp.int32) <= iteration
    return jnp.sum(reached).astype(jnp.float32)
