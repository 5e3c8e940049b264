"""Default loss and trainer: the published losses on clips, and AdamW with parameter groups."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

from jaxtyping import Array, Int, Key

from s3_jax.models.s3 import S3
from s3_jax.training.clip import ClipBatch, run_clip
from s3_jax.training.draws import Draws, draw
from s3_jax.training.losses import ChoosePoints, clip_losses, num_pairs
from s3_jax.training.optimizer import make_optimizer
from s3_jax.training.parameter_groups import Params, Path, group_of, matches
from s3_jax.training.parts import Trainer, Variables
from s3_jax.training.points import choose_points
from s3_jax.training.schedules import learning_rate_schedule
from s3_jax.training.state import Metrics
from s3_jax.training.step_config import StepConfig

# (step's key, rows in the global batch, frames of a clip) -> random choices
DrawClip = Callable[[Array, Array, int], Draws]


@dataclasses.dataclass(frozen=True)
class ClipLoss:
    """Loss of a network on a batch of clips; see `parts.Loss`.

    draw_clip, choose_points: the only sources of randomness; replace them to replay choices.
    """

    model: S3
    config: StepConfig
    draw_clip: DrawClip
    choose_points: ChoosePoints

    def __call__(
        self, variables: Variables, batch: ClipBatch, rows: Int[Array, "b"], key: Key[Array, ""]
    ) -> tuple[Metrics, Params]:
        draws = self.draw_clip(key, rows, batch.frames.shape[1])
        prediction, stats = run_clip(self.model, variables, self.config.clip, batch, draws)
        losses = clip_losses(prediction, batch, self.config.loss, draws.points, self.choose_points)
        return losses, stats


def clip_loss(model: S3, config: StepConfig) -> ClipLoss:
    """Return the published loss for a network.

    Raises:
      ValueError: a single-object network is to be trained with several objects.
    """
    slots = config.clip.num_objects
    if model.config.single_object and slots != 1:
        raise ValueError(f"num_objects is {slots}, but a single_object network needs 1")
    return ClipLoss(
        model=model,
        config=config,
        draw_clip=functools.partial(draw, pairs=num_pairs(model.config), config=config.clip),
        choose_points=functools.partial(choose_points, config.loss),
    )


def make_trainer(model: S3, config: StepConfig) -> Trainer:
    """Return the default trainer for a model.

    Args:
      model: network with `axis_name` set if the step runs on replicas. Computation uses its
        dtype; its `trainable_blocks` are the part of the ViT that is fine-tuned.

    Raises:
      ValueError: a single-object network is to be trained with several objects.
    """
    schedule = learning_rate_schedule(config.optimizer)
    return Trainer(
        loss=clip_loss(model, config),
        optimizer=make_optimizer(config.optimizer, schedule, model),
        trains=functools.partial(_trains, model, config.frozen),
        schedule=schedule,
        accumulate=config.accumulate,
        ema_decay=config.ema_decay,
        axis_name=model.axis_name,
    )


def _trains(model: S3, frozen: Sequence[str], path: Path) -> bool:
    return group_of(path, model) != "frozen" and not matches(path, frozen)
