"""Optimizer: gradient clipping, then AdamW with learning rate and decay per parameter group."""

import jax.numpy as jnp
import optax

from s3_jax.models.s3 import S3
from s3_jax.training.parameter_groups import group_labels
from s3_jax.training.schedules import Schedule
from s3_jax.training.step_config import OptimizerConfig

EPSILON = 1e-8
MIXED_PRECISION_EPSILON = 1e-6


def make_optimizer(
    config: OptimizerConfig, schedule: Schedule, model: S3
) -> optax.GradientTransformation:
    """Return the optimizer of the trainable parameters (`split_frozen`); frozen ones have no state.

    Weight decay is decoupled and multiplied by the learning rate, as in PyTorch's AdamW.

    Args:
      schedule: learning rate per iteration; each group uses a multiple of it.
      model: determines each parameter's group, and whether precision is mixed.
    """

    def adamw(ratio: float, weight_decay: float) -> optax.GradientTransformation:
        """Return AdamW with a multiple of the scheduled learning rate."""
        return optax.adamw(
            lambda iteration: ratio * schedule(iteration),
            b1=config.beta1,
            b2=config.beta2,
            eps=epsilon(config, model),
            weight_decay=weight_decay,
        )

    groups = {
        "backbone": adamw(config.backbone_ratio, config.weight_decay),
        "embedding": adamw(1.0, config.embedding_weight_decay),
        "other": adamw(1.0, config.weight_decay),
    }
    apart = config.pretrained_ratio is not None
    if config.pretrained_ratio is not None:
        groups["pretrained"] = adamw(config.pretrained_ratio, config.weight_decay)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.partition(groups, lambda params: group_labels(params, model, apart)),
    )


def epsilon(config: OptimizerConfig, model: S3) -> float:
    """Return Adam's epsilon: the configured one, or the published one for the precision."""
    if config.epsilon is not None:
        return config.epsilon
    return EPSILON if model.dtype == jnp.float32 else MIXED_PRECISION_EPSILON
