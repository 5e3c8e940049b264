"""Networks at the start of stages: initial values, checkpoints, and the handover between stages."""

import dataclasses

import jax.numpy as jnp

from s3_jax.checkpoints.model import load_model
from s3_jax.config import OF_USE, ModelConfig
from s3_jax.errors import InputError
from s3_jax.models.s3 import S3
from s3_jax.models.variables import Variables, initial_variables
from s3_jax.models.widening import widen
from s3_jax.training.clip_loss import make_trainer
from s3_jax.training.parallel import replica_axes
from s3_jax.training.parts import Trainer
from s3_jax.training.run_config import RunConfig, StageConfig


def stage_model(run: RunConfig, stage: StageConfig) -> ModelConfig:
    """Return the configuration of the network that a stage trains."""
    return dataclasses.replace(run.model, single_object=stage.single_object)


def stage_trainer(run: RunConfig, stage: StageConfig) -> Trainer:
    """Return the trainer of a stage, for replicas."""
    model = S3(
        stage_model(run, stage),
        trainable_blocks=stage.trainable_blocks,
        axis_name=replica_axes(run.devices),
        dtype=jnp.dtype(stage.dtype),
    )
    return make_trainer(model, stage.step)


def first_variables(run: RunConfig) -> Variables:
    """Return the variables that the run's first stage starts from.

    Raises:
      InputError: the initial checkpoint is missing, damaged, or belongs to another network.
    """
    model = stage_model(run, run.stages[0])
    if not run.initial_checkpoint:
        return initial_variables(model, run.seed)
    config, variables = load_model(run.initial_checkpoint)
    try:
        return hand_over(config, variables, model, run.seed)
    except InputError as error:
        raise InputError(f"initial_checkpoint {run.initial_checkpoint}: {error}") from error


def hand_over(
    config: ModelConfig, variables: Variables, model: ModelConfig, seed: int
) -> Variables:
    """Return the variables of one network, adapted to the next one.

    A single-object network is widened to a multi-object one if the next network is one. Its new
    input channel, for the masks of other objects, is initialized orthogonally from the seed.

    Raises:
      InputError: the networks differ in any other way that affects weights.
    """
    variables = {name: variables[name] for name in ("params", "batch_stats")}
    config = dataclasses.replace(config, **{name: getattr(model, name) for name in OF_USE})
    if config == model:
        return variables
    if dataclasses.replace(config, single_object=False) != model:
        raise InputError(f"the networks differ: {_difference(config, model)}")
    return widen(variables, seed)


def _difference(config: ModelConfig, model: ModelConfig) -> str:
    names = [field.name for field in dataclasses.fields(ModelConfig)]
    differing = [name for name in names if getattr(config, name) != getattr(model, name)]
    return ", ".join(
        f"{name} is {getattr(config, name)}, here {getattr(model, name)}" for name in differing
    )
