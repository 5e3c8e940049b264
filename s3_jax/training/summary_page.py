"""`summary.html`: a training run on one self-contained page, made from the run's own files."""

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from s3_jax.files import replacing
from s3_jax.media.run_json import NAME, read_record
from s3_jax.training.progress import METRICS, read_metrics
from s3_jax.training.run_config import flat

FILE = "summary.html"
WIDTH, HEIGHT, EDGE = 720, 200, 10
MOST_POINTS = 500
SPEED = {
    "steps_per_second": "steps/s",
    "frames_per_second": "frames/s",
    "share_of_peak": "fraction of the devices' peak",
    "teraflops_per_second": "TFLOP/s",
    "data_wait": "seconds per step spent waiting for data",
    "host_memory": "peak host memory, bytes",
    "device_memory": "peak device memory, bytes",
}


@dataclasses.dataclass(frozen=True)
class Chart:
    """Curve over the run's steps. points: coordinates in SVG's format."""

    title: str
    points: str
    lowest: str
    highest: str
    last: int


def write_summary(workdir: Path, total: int) -> Path:
    """Write the page, replacing an earlier one, and return its path.

    total: steps of the whole run.
    """
    record, entries = read_record(workdir / NAME), read_metrics(workdir / METRICS)
    page = jinja2.Environment(
        loader=jinja2.PackageLoader("s3_jax.training", "page"), autoescape=True
    ).get_template("summary.html")
    logged = [entry for entry in entries if "losses" in entry]
    last = logged[-1] if logged else {}
    with replacing(workdir / FILE) as temporary:
        temporary.write_text(
            page.render(
                name=workdir.resolve().name,
                step=last.get("step", 0),
                total=total,
                stage=last.get("stage"),
                state="finished" if record.get("finished") else "not finished",
                problem=record.get("problem"),
                now=datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
                charts=[chart for chart in _charts(entries) if chart is not None],
                tables=_tables(record, entries, last),
            )
        )
    return workdir / FILE


def _charts(entries: Sequence[Mapping[str, Any]]) -> list[Chart | None]:
    loss = [(entry["step"], entry["total"]) for entry in entries if "total" in entry]
    waited = [
        (entry["step"], entry["steps_per_second"])
        for entry in entries
        if "steps_per_second" in entry
    ]
    charts = [chart_of("loss", loss), chart_of("steps per second", waited)]
    names = {name for entry in entries for name in entry.get("validation", ())}
    for name in sorted(names):
        found = [
            (e["step"], e["validation"][name]) for e in entries if name in e.get("validation", ())
        ]
        charts.append(chart_of(f"validation: {name}", found))
    return charts


def chart_of(title: str, values: Sequence[tuple[int, float]]) -> Chart | None:
    """Return a curve of the finite values, or None for fewer than two points."""
    values = [(x, y) for x, y in values if math.isfinite(y)]
    values = values[:: max(1, len(values) // MOST_POINTS)]
    if len(values) < 2:
        return None
    low, high = min(y for _, y in values), max(y for _, y in values)
    first, last = values[0][0], values[-1][0]

    def place(x: int, y: float) -> str:
        """Return a point's position on the page."""
        across = EDGE + (WIDTH - 2 * EDGE) * (x - first) / max(last - first, 1)
        up = EDGE + (HEIGHT - 2 * EDGE) * (1 - (y - low) / ((high - low) or 1))
        return f"{across:.1f},{up:.1f}"

    points = " ".join(place(x, y) for x, y in values)
    return Chart(title, points, f"{low:.4g}", f"{high:.4g}", last)


def _tables(
    record: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], last: Mapping[str, Any]
) -> list[tuple[str, list[tuple[str, str]]]]:
    speed = [(words, f"{last[name]:.4g}") for name, words in SPEED.items() if name in last]
    skipped = sum(entry.get("skipped", 0) for entry in entries)
    scores = [
        (f"step {entry['step']}", ", ".join(f"{k} {v:.4g}" for k, v in entry["validation"].items()))
        for entry in entries
        if "validation" in entry
    ]
    settings = [(name, str(value)) for name, value in flat(record["settings"]).items()]
    versions = [(name, str(value)) for name, value in record.get("versions", {}).items()]
    return [
        ("Speed since the last log", [*speed, ("steps skipped in this run", str(skipped))]),
        ("Validation", scores[-10:]),
        ("Settings", settings),
        ("Versions", versions),
    ]
