"""Callbacks of training: actions after a step that do not affect training itself."""

import dataclasses
from pathlib import Path

import jax

from s3_jax.training.clip_loss import ClipLoss
from s3_jax.training.parts import StepDone
from s3_jax.training.pictures import draw_clip
from s3_jax.training.progress import say


class Profile:
    """Callback that records an XProf trace of some steps, for TensorBoard with its plugin.

    first, last: numbers of completed steps at which the trace begins and ends.
    """

    def __init__(self, first: int, last: int, directory: Path):
        self._first, self._last, self._directory = first, last, directory
        self._running = False

    def __call__(self, done: StepDone) -> None:
        if not self._running and done.total == self._first:
            done.wait()
            jax.profiler.start_trace(str(self._directory))
            self._running = True
        elif self._running and done.total == self._last:
            done.wait()
            jax.profiler.stop_trace()
            self._running = False
            say(f"wrote a profile of steps {self._first} to {self._last} to {self._directory}")


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Callback that writes pictures of the batch's first clip to TensorBoard at intervals.

    every: number of steps between pictures.
    """

    every: int

    def __call__(self, done: StepDone) -> None:
        loss = done.trainer.loss
        if done.total % self.every or jax.process_index() or not isinstance(loss, ClipLoss):
            return
        state, slots = done.state(), loss.config.clip.num_objects
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        done.journal.show(draw_clip(loss.model, variables, done.batch, slots), done.total)
