"""Scores as one HTML file, with tables, curves of J over time, and pictures of the worst frames.

The file loads nothing from the network or from disk. Its script only adds sorting and shows values
under the pointer. Template, style and script are in `page/`.
"""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import jinja2

from s3_jax.benchmarks.curves import CHART, SPARK, Curve
from s3_jax.benchmarks.report import Report, percent
from s3_jax.benchmarks.summary import RunSummary, SequenceSummary
from s3_jax.benchmarks.worst_frames import WorstFrame
from s3_jax.files import replacing
from s3_jax.media.image_files import natural_key

MOST_CURVES = 8
MOST_OPEN = 12  # number of sequences that are shown unfolded
# Sequence -> frame -> a picture for each result.
Pictures = Mapping[str, Sequence[Sequence[WorstFrame]]]


@dataclasses.dataclass(frozen=True)
class SequenceView:
    """A sequence on the page; `results` has one entry per run, in the order of the runs."""

    name: str
    results: Sequence[SequenceSummary]
    curves: Sequence[Curve]

    @property
    def first(self) -> SequenceSummary:
        """The result from which the numbers of objects and frames are taken."""
        return self.results[0]

    @property
    def first_means(self) -> dict[str, tuple[float, float]]:
        """J and F of the first result by frame."""
        return self.first.frame_means()

    @property
    def anchor(self) -> str:
        """The id of the element to which links point."""
        return f"sequence-{self.name}".replace(" ", "-")

    @property
    def scores(self) -> list[float]:
        """J&F of each result."""
        return [sequence.overall.score for sequence in self.results]

    @property
    def frames(self) -> list[str]:
        """Names of all frames with a value on some curve, in temporal order."""
        return sorted({frame for curve in self.curves for frame in curve.values}, key=natural_key)


def write_page(path: Path, report: Report, pictures: Pictures) -> None:
    """Write the HTML report.

    Args:
      pictures: the worst frames of some or all sequences, shown with their curves.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("s3_jax.benchmarks", "page"), autoescape=True
    )
    environment.filters["percent"] = percent
    environment.filters["region_means"] = partial(_means, which=0)
    environment.filters["base64"] = _base64
    text = environment.get_template("report.html").render(
        report=report,
        sequences=[_view(report.runs, name) for name in report.worst_first()],
        pictures=pictures,
        large=CHART,
        small=SPARK,
        most_open=MOST_OPEN,
    )
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _view(runs: Sequence[RunSummary], name: str) -> SequenceView:
    results = [run.sequences[name] for run in runs]
    return SequenceView(name, results, _curves([run.name for run in runs], results))


def _curves(names: Sequence[str], results: Sequence[SequenceSummary]) -> list[Curve]:
    """Return J of each result; for one result J of each object, or J and F of a single object."""
    if len(results) > 1:
        return [Curve(n, _means(result, 0)) for n, result in zip(names, results, strict=True)]
    objects = results[0].scores.objects
    if 1 < len(objects) <= MOST_CURVES:
        return [
            Curve(f"object {o.object_id}", dict(zip(o.frames, o.region, strict=True)))
            for o in objects
        ]
    return [Curve("J", _means(results[0], 0)), Curve("F", _means(results[0], 1), faint=True)]


def _means(sequence: SequenceSummary, which: int) -> dict[str, float]:
    return {frame: pair[which] for frame, pair in sequence.frame_means().items()}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
