"""The quickest way to fit a training step into memory: micro-batches and rematerialisation."""

import dataclasses
from collections.abc import Callable, Iterator

from s3_jax.analysis.plan import OutOfMemory, Plan
from s3_jax.training.settings import Rematerialization, StepSettings

# (image encoder, frame by frame), from nothing computed again to everything.
LADDER: tuple[tuple[Rematerialization, Rematerialization], ...] = (
    ("none", "none"),
    ("none", "products"),
    ("products", "products"),
    ("products", "full"),
    ("full", "full"),
)


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One way to run the step, and what came of it."""

    settings: StepSettings
    outcome: Plan | OutOfMemory

    def fits(self, headroom: float) -> bool:
        """Whether at least this part of the memory stays free."""
        return isinstance(self.outcome, Plan) and self.outcome.headroom >= headroom


def candidates(settings: StepSettings, rows: int) -> Iterator[StepSettings]:
    """Ways to run the step on `rows` clips per device, those that compute least again first.

    Micro-batches come last: they save activations like rematerialisation does, but each is a
    smaller, less efficient product.
    """
    for parts in (n for n in range(1, rows + 1) if rows % n == 0):
        for encoder, frames in LADDER:
            clip = dataclasses.replace(settings.clip, remat_encoder=encoder, remat_frames=frames)
            yield dataclasses.replace(settings, clip=clip, accumulate=parts)


def search(
    settings: StepSettings,
    rows: int,
    headroom: float,
    compile_one: Callable[[StepSettings], Plan | OutOfMemory],
) -> Iterator[Attempt]:
    """Tries one candidate after the other, up to and including the first that fits."""
    for candidate in candidates(settings, rows):
        attempt = Attempt(candidate, compile_one(candidate))
        yield attempt
        if attempt.fits(headroom):
            return
