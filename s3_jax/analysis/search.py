"""Search for the fastest way to fit a training step into memory.

The ways to run it differ in micro-batches and rematerialization.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from s3_jax.analysis.estimate import Estimate, OutOfMemory
from s3_jax.training.step_config import Rematerialization, StepConfig

# (image encoder, frame by frame), from no recomputation to full recomputation.
LADDER: tuple[tuple[Rematerialization, Rematerialization], ...] = (
    ("none", "none"),
    ("none", "products"),
    ("products", "products"),
    ("products", "full"),
    ("full", "full"),
)


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One way to run the step, and its outcome."""

    step: StepConfig
    outcome: Estimate | OutOfMemory

    def fits(self, headroom: float) -> bool:
        """Return True if at least this share of the memory stays free."""
        return isinstance(self.outcome, Estimate) and self.outcome.headroom >= headroom


def search(
    step: StepConfig,
    rows: int,
    headroom: float,
    compile_one: Callable[[StepConfig], Estimate | OutOfMemory],
) -> Iterator[Attempt]:
    """Try ways to run the step on `rows` clips per device until the fastest that fits is known.

    Compilation takes minutes, so not every rung of the ladder is tried. The first attempt has no
    recomputation. The second has full recomputation and shows whether the step fits at all.
    Bisection between them follows. Micro-batches come last: they also save activations, but make
    matrix products smaller and less efficient.

    Yields:
      Every attempt; `best` chooses among them.
    """

    def attempt(parts: int, rung: int) -> Attempt:
        """Compile the step with this many micro-batches on one rung of the ladder."""
        encoder, frames = LADDER[rung]
        clip = dataclasses.replace(step.clip, remat_encoder=encoder, remat_frames=frames)
        candidate = dataclasses.replace(step, clip=clip, accumulate=parts)
        return Attempt(candidate, compile_one(candidate))

    for parts in (n for n in range(1, rows + 1) if rows % n == 0):
        too_large, fitting = 0, len(LADDER) - 1
        yield (nothing_again := attempt(parts, too_large))
        if nothing_again.fits(headroom):
            return
        yield (everything_again := attempt(parts, fitting))
        if not everything_again.fits(headroom):
            continue
        while fitting - too_large > 1:
            middle = (too_large + fitting) // 2
            yield (tried := attempt(parts, middle))
            if tried.fits(headroom):
                fitting = middle
            else:
                too_large = middle
        return


def best(attempts: Sequence[Attempt], headroom: float) -> Attempt:
    """Return the fastest attempt that fits by the compiler's estimate, or the last if none does."""
    fitting = [one for one in attempts if one.fits(headroom)]
    times = [one.outcome.seconds for one in fitting if isinstance(one.outcome, Estimate)]
    return fitting[times.index(min(times))] if fitting else attempts[-1]
