"""What changes over the iterations: learning rate and frame skip (protocol.md section 5)."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from s3_jax.training.step_config import OptimizerConfig

Schedule = Callable[[Integer[Array, ""] | int], Float[Array, ""]]

SKIP_VALUES = (5, 10, 15, 5)
SKIP_FRACTIONS = (0.0, 0.1, 0.3, 0.8)


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


def max_skip(
    iteration: int,
    iterations: int,
    values: Sequence[int] = SKIP_VALUES,
    fractions: Sequence[float] = SKIP_FRACTIONS,
) -> int:
    """Largest distance between neighbouring frames of a clip at an iteration.

    Args:
      iterations: of the whole training.
      values: one after the other; fractions: parts of training after which each holds.

    Raises:
      ValueError: not as many values as fractions, or the fractions do not ascend from 0.
    """
    if len(values) != len(fractions) or list(fractions) != sorted(fractions) or fractions[0] != 0:
        raise ValueError(
            f"max_skip needs a value for each fraction, and fractions that ascend from 0; got "
            f"values {tuple(values)} and fractions {tuple(fractions)}"
        )
    started = [
        value
        for value, fraction in zip(values, fractions, strict=True)
        if iteration >= round(fraction * iterations)
    ]
    return started[-1]
