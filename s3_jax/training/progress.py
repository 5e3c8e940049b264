"""What a run says while it goes on: progress bar, log lines, `metrics.jsonl`, TensorBoard."""

import datetime
import json
import os
import sys
from pathlib import Path
from types import TracebackType

import jax
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from s3_jax.benchmarks.summary import RunSummary
from s3_jax.media.writers import replacing
from s3_jax.training.run_config import RunConfig, StageConfig
from s3_jax.training.window import WindowSummary

METRICS = "metrics.jsonl"
CURVES = "tensorboard"


class Journal:
    """Of the first process; the others are silent. A context manager.

    step: that the run goes on from; what was written of later ones is removed, for they are
      done again.
    """

    def __init__(self, workdir: Path, run: RunConfig, step: int):
        self._speaks = jax.process_index() == 0
        self._total = run.total_steps
        self._stage = ""
        self._bar = tqdm(
            total=run.total_steps,
            initial=step,
            unit="step",
            dynamic_ncols=True,
            smoothing=0.05,
            disable=not (self._speaks and sys.stderr.isatty()),
        )
        self._file = workdir / METRICS
        self._curves: SummaryWriter | None = None
        if self._speaks:
            _forget_after(self._file, step)
            self._curves = SummaryWriter(str(workdir / CURVES), purge_step=step + 1)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
        if self._curves is not None:
            self._curves.close()

    def enter(self, stage: StageConfig) -> None:
        """A stage begins or goes on."""
        self._stage = stage.name
        self._bar.set_description(stage.name)

    def advance(self) -> None:
        """A step was given to the device."""
        self._bar.update()

    def log(self, report: WindowSummary, step: int) -> None:
        """Losses since the last log; `step` steps of all stages are done."""
        left = datetime.timedelta(seconds=round(report.seconds * (self._total - step)))
        parts = {name: value for name, value in report.metrics.items() if name.startswith("mask_")}
        losses = " ".join(f"{name} {value:.4f}" for name, value in parts.items())
        say(
            f"step {step}/{self._total} {self._stage}: loss {report.metrics['total']:.4f} "
            f"({losses}) gradient {report.metrics['grad_norm']:.2f}, {report.seconds:.2f} s/step, "
            f"{left} left"
        )
        self._write({"step": step, "stage": self._stage, "stage_step": report.step,
                     **report.metrics, "losses": report.losses,
                     "seconds": report.seconds})  # fmt: skip
        self._draw("training", {**report.metrics, "seconds_per_step": report.seconds}, step)

    def validated(self, result: RunSummary, step: int) -> None:
        """Scores on the validation videos after `step` steps of all stages."""
        columns = result.overall.columns()
        say(f"step {step}/{self._total}: validation " + ", ".join(
            f"{name} {100 * columns[name]:.1f}" for name in ("J&F-Mean", "J-Mean", "F-Mean")
        ))  # fmt: skip
        each = {name: video.overall.score for name, video in result.sequences.items()}
        self._write({"step": step, "validation": columns, "videos": each})
        self._draw("validation", columns, step)
        self._draw("validation_videos", each, step)

    def show(self, pictures: dict[str, np.ndarray], step: int) -> None:
        """Pictures (h, w, 3), uint8, for TensorBoard."""
        if self._curves is not None:
            for name, picture in pictures.items():
                self._curves.add_image(f"clip/{name}", picture, step, dataformats="HWC")

    def _draw(self, group: str, values: dict[str, float], step: int) -> None:
        if self._curves is not None:
            for name, value in values.items():
                self._curves.add_scalar(f"{group}/{name}", value, step)

    def _write(self, entry: dict) -> None:
        if self._speaks:
            with self._file.open("a") as file:
                file.write(json.dumps(entry) + "\n")


def say(line: str) -> None:
    """A line for people, above the progress bar; from the first process only."""
    if jax.process_index() == 0:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


def read_metrics(file: str | os.PathLike[str]) -> list[dict]:
    """The entries of a `metrics.jsonl`; a line that a crash cut off is left out."""
    file = Path(file)
    if not file.exists():
        return []
    entries = []
    for line in file.read_text().splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries


def _forget_after(file: Path, step: int) -> None:
    entries = [entry for entry in read_metrics(file) if entry["step"] <= step]
    with replacing(file) as temporary:
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
