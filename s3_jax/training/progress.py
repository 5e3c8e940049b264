"""Progress reports of a run: progress bar, log lines, `metrics.jsonl`, TensorBoard, heartbeat."""

import dataclasses
import datetime
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from tensorboardX import SummaryWriter
from tqdm import tqdm

from s3_jax.files import replacing
from s3_jax.segmentation.run_record import peak_host_memory
from s3_jax.training.window import WindowSummary

METRICS = "metrics.jsonl"
HEARTBEAT = "heartbeat"
BEAT = 10.0  # minimum seconds between heartbeats
CURVES = "tensorboard"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Result of evaluating a network.

    score: selects the best checkpoint; higher is better.
    values, videos: numbers to log, overall and per video; just the score if omitted.
    summary: text to log instead of the values.
    """

    score: float
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)
    videos: Mapping[str, float] = dataclasses.field(default_factory=dict)
    summary: str = ""

    def __post_init__(self) -> None:
        if not self.values:
            object.__setattr__(self, "values", {"score": self.score})

    @property
    def words(self) -> str:
        """Human-readable text on one line."""
        return self.summary or ", ".join(f"{name} {x:.4g}" for name, x in self.values.items())


class Journal:
    """Context manager that reports on a run; silent on all processes but the first.

    total: steps of the whole run.
    step: step from which the run continues; entries of later steps are removed, because these steps
      are repeated.

    arithmetic: FLOPs of this process per step, and peak FLOPs per second of its devices (None if
      unknown), for the metrics; None to omit them.
    """

    arithmetic: tuple[float, float | None] | None = None

    def __init__(self, workdir: Path, total: int, step: int):
        self._speaks = jax.process_index() == 0
        self._total = total
        self._stage = ""
        self._bar = tqdm(
            total=total,
            initial=step,
            unit="step",
            dynamic_ncols=True,
            smoothing=0.05,
            disable=not (self._speaks and sys.stderr.isatty()),
        )
        self._file = workdir / METRICS
        self._heart = Heart(workdir, total, step)
        self._curves: SummaryWriter | None = None
        if self._speaks:
            _forget_after(self._file, step)
            self._curves = SummaryWriter(str(workdir / CURVES), purge_step=step + 1)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._bar.close()
        if self._curves is not None:
            self._curves.close()
        if kind is None:
            self._heart.write(self._stage)

    def enter(self, stage: str) -> None:
        """Report that a stage begins or continues."""
        self._stage = stage
        self._bar.set_description(stage)

    def advance(self) -> None:
        """Report that a step was dispatched to the device."""
        self._bar.update()
        self._heart.beat(self._stage)

    def log(self, report: WindowSummary, step: int) -> None:
        """Log the losses since the last log; `step` steps of all stages are done."""
        left = datetime.timedelta(seconds=round(report.seconds * (self._total - step)))
        parts = {name: value for name, value in report.metrics.items() if name.startswith("mask_")}
        losses = " ".join(f"{name} {value:.4f}" for name, value in parts.items())
        words = f" ({losses})" if losses else ""
        say(
            f"step {step}/{self._total} {self._stage}: loss {report.metrics['total']:.4f}{words} "
            f"gradient {report.metrics['grad_norm']:.2f}, {report.seconds:.2f} s/step, {left} left"
        )
        speed = _speed(report) | self._share_of_peak(report.seconds)
        self._write({"step": step, "stage": self._stage, "stage_step": report.step,
                     **report.metrics, **speed, "skipped": report.skipped,
                     "losses": [x if np.isfinite(x) else None for x in report.losses]})  # fmt: skip
        self._draw("training", report.metrics, step)
        self._draw("speed", speed, step)

    def _share_of_peak(self, seconds: float) -> dict[str, float]:
        if self.arithmetic is None:
            return {}
        flops, peak = self.arithmetic
        share = {} if peak is None else {"share_of_peak": flops / seconds / peak}
        return {"teraflops_per_second": flops / seconds / 1e12} | share

    def evaluated(self, result: Evaluation, step: int) -> None:
        """Log the result of an evaluation after `step` steps of all stages."""
        say(f"step {step}/{self._total}: validation {result.words}")
        self._write(
            {"step": step, "validation": dict(result.values), "videos": dict(result.videos)}
        )
        self._draw("validation", result.values, step)
        self._draw("validation_videos", result.videos, step)

    def show(self, pictures: dict[str, np.ndarray], step: int) -> None:
        """Write pictures (h, w, 3), uint8, to TensorBoard."""
        if self._curves is not None:
            for name, picture in pictures.items():
                self._curves.add_image(f"clip/{name}", picture, step, dataformats="HWC")

    def _draw(self, group: str, values: Mapping[str, float], step: int) -> None:
        if self._curves is not None:
            for name, value in values.items():
                self._curves.add_scalar(f"{group}/{name}", value, step)

    def _write(self, entry: dict) -> None:
        if self._speaks:
            with self._file.open("a") as file:
                file.write(json.dumps(entry) + "\n")


class Heart:
    """Writer of a process's heartbeat file, which holds the latest step and its time.

    The first process writes `heartbeat.json`, the i-th further one `heartbeat_<i>.json`. If the
    file is no longer updated before the last step, the process hangs or has died.

    total: steps of the whole run. step: number of steps already done.
    """

    def __init__(self, workdir: Path, total: int, step: int):
        index = jax.process_index()
        self._file = workdir / (f"{HEARTBEAT}_{index}.json" if index else f"{HEARTBEAT}.json")
        self._about = {"host": socket.gethostname(), "process": os.getpid(), "steps": total}
        self._step, self._last = step, -BEAT

    def beat(self, stage: str) -> None:
        """Record that a step has begun."""
        self._step += 1
        if time.monotonic() - self._last >= BEAT:
            self.write(stage)

    def write(self, stage: str) -> None:
        """Replace the file."""
        self._last = time.monotonic()
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        said = {"time": now, "step": self._step, "stage": stage, **self._about}
        with replacing(self._file) as temporary:
            temporary.write_text(json.dumps(said) + "\n")


def _speed(summary: WindowSummary) -> dict[str, float]:
    """Return speed and peak memory (in bytes) of this process."""
    device = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "seconds": summary.seconds,
        "steps_per_second": 1 / summary.seconds,
        "frames_per_second": summary.frames / summary.seconds,
        "data_wait": summary.data_wait,
        "host_memory": peak_host_memory(),
    } | ({} if device is None else {"device_memory": device})


def say(line: str) -> None:
    """Print a line above the progress bar, from the first process only."""
    if jax.process_index() == 0:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()


def read_metrics(file: str | os.PathLike[str]) -> list[dict]:
    """Return the entries of a `metrics.jsonl`, without lines that a crash truncated."""
    file = Path(file)
    if not file.exists():
        return []
    entries = []
    for line in file.read_text().splitlines():
        try:
            entries.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return entries


def _forget_after(file: Path, step: int) -> None:
    entries = [entry for entry in read_metrics(file) if entry["step"] <= step]
    with replacing(file) as temporary:
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
