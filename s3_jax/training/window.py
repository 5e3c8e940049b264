"""Metrics of the steps since the last log, and the reasons they give to stop training.

Metrics stay on the device until the window is closed, so that steps can follow one another without
waiting for the host.
"""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Iterator

import jax
import numpy as np

from s3_jax.training.state import Metrics

LEAST_WINDOWS = 5  # with fewer, the median is not reliable
REMEMBERED = 50  # windows over which the median is taken
IN_FLIGHT = 2  # unfinished steps that may be queued on the device


@dataclasses.dataclass(frozen=True)
class WindowSummary:
    """Summary of a window of steps, the last of which is step `step` of the stage.

    metrics: means over the steps; skipped steps count only if all steps were skipped.
    losses: the total loss of every step.
    seconds: wall time per step. data_wait: the part of it spent waiting for the batch.
    frames: number of frames in one step, over all processes.
    skipped: number of steps whose loss or gradient was not finite.
    bad_step: the step, counted from 0, whose batch caused a problem; None if there was none.
    problem: description of the problem.
    """

    step: int
    metrics: dict[str, float]
    losses: list[float]
    seconds: float
    data_wait: float = 0.0
    frames: int = 0
    skipped: int = 0
    bad_step: int | None = None
    problem: str = ""


class Window:
    """Collector of the metrics of consecutive steps.

    divergence: see `RunConfig`.
    """

    def __init__(self, divergence: float):
        self._divergence = divergence
        self._pending: list[Metrics] = []
        self._medians: list[float] = []
        self._started = time.perf_counter()
        self._waited, self._frames = 0.0, 0

    def __len__(self) -> int:
        return len(self._pending)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time spent inside the context as waiting for data."""
        began = time.perf_counter()
        yield
        self._waited += time.perf_counter() - began

    def add(self, metrics: Metrics, frames: int = 0) -> None:
        """Add the metrics of a step that may still be running; block if too many are in flight.

        frames: number of frames in the step.
        """
        self._frames = frames
        self._pending.append(metrics)
        if len(self._pending) > IN_FLIGHT:
            jax.block_until_ready(self._pending[-1 - IN_FLIGHT])

    def close(self, step: int) -> WindowSummary:
        """Return the summary of the steps since the last one and restart; `step` steps are done."""
        steps = jax.device_get(self._pending)
        elapsed = time.perf_counter() - self._started
        table = {name: np.array([float(m[name]) for m in steps]) for name in steps[0]}
        first = step - len(steps)
        bad, problem = self._judge(table)
        finite = table["finite"] > 0
        counted = finite if finite.any() else ~finite
        report = WindowSummary(
            step=step,
            metrics={name: float(values[counted].mean()) for name, values in table.items()},
            losses=table["total"].tolist(),
            seconds=elapsed / len(steps),
            frames=self._frames,
            data_wait=self._waited / len(steps),
            skipped=int((~finite).sum()),
            bad_step=None if bad is None else first + bad,
            problem=problem,
        )
        self.restart()
        return report

    def restart(self) -> None:
        """Discard the steps collected so far, and restart the clock."""
        self._pending = []
        self._started, self._waited = time.perf_counter(), 0.0

    def _judge(self, table: dict[str, np.ndarray]) -> tuple[int | None, str]:
        """Return the step of the window that caused a problem, if any, and a description."""
        losses = table["total"]
        failed = np.flatnonzero(table["finite"] < 1)
        if len(failed):
            index = int(failed[0])
            what = "loss" if not np.isfinite(losses[index]) else "gradient"
            return index, f"the {what} is not finite"
        mean, before = float(losses.mean()), self._medians
        if self._divergence and len(before) >= LEAST_WINDOWS:
            usual = statistics.median(before)
            if mean > self._divergence * usual:
                return int(losses.argmax()), (
                    f"training diverges: the mean loss is {mean:.4g}, more than "
                    f"{self._divergence:g} times the usual {usual:.4g}"
                )
        self._medians = [*before, mean][-REMEMBERED:]
        return None, ""
