"""Callbacks of training: what is done after steps that changes nothing of them."""

import dataclasses

import jax
import numpy as np

from s3_jax.training.clip_loss import ClipLoss
from s3_jax.training.parallel import unreplicate
from s3_jax.training.parts import StepDone
from s3_jax.training.pictures import draw_clip


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Every so many steps of the run, pictures of the batch's first clip, for TensorBoard."""

    every: int

    def __call__(self, done: StepDone) -> None:
        loss = done.trainer.loss
        if done.total % self.every or jax.process_index() or not isinstance(loss, ClipLoss):
            return
        state, slots = unreplicate(done.state), loss.config.clip.num_objects
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        batch = {name: np.asarray(x) for name, x in done.batch._asdict().items()}
        done.journal.show(draw_clip(loss.model, variables, batch, slots), done.total)
