"""Training state: everything that training changes, as one pytree."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, UInt32

from s3_jax.training.parameter_groups import Params, merge

Metrics = dict[str, Float[Array, ""]]


class TrainState(flax.struct.PyTreeNode):
    """State of training after some number of steps, as saved in checkpoints.

    step: number of steps done, which is also the index of the next iteration, from 0.
    params: all parameters of the network, float32, including frozen ones.
    batch_stats: running statistics of BatchNorm.
    opt_state: optimizer state of the trainable parameters.
    ema: moving average of the trainable parameters; None if none is kept.
    rng: the run's base key, from which every step derives its own; never changes.
    """

    step: Int[Array, ""]
    params: Params
    batch_stats: Params
    opt_state: optax.OptState
    ema: Params | None
    rng: UInt32[Array, "2"]


def step_key(state: TrainState) -> Key[Array, ""]:
    """Return the key of the state's next step."""
    return jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)


def base_key(seed: int) -> UInt32[Array, "2"]:
    """Return a run's base key as plain numbers, so that it can be stored anywhere."""
    return jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))


def evaluation_variables(state: TrainState, averaged: bool = True) -> dict[str, Any]:
    """Return the variables to segment videos with.

    Args:
      averaged: use the moving average of the parameters, if one is kept.
    """
    params = state.params
    if averaged and state.ema is not None:
        params = merge(params, state.ema)
    return {"params": params, "batch_stats": state.batch_stats}


def zero_step() -> Int[Array, ""]:
    """Return the step counter before the first step, int32."""
    return jnp.zeros((), jnp.int32)
