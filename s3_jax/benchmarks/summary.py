"""Averages of scores: an object's over frames, a sequence's and a data set's over objects."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from s3_jax.benchmarks.metrics import Statistics, statistics
from s3_jax.benchmarks.protocols import Group
from s3_jax.benchmarks.scoring import ObjectScores, SequenceScores
from s3_jax.media.image_files import natural_key


@dataclasses.dataclass(frozen=True)
class Summary:
    """Statistics of J (`region`) and F (`boundary`), averaged over objects."""

    region: Statistics
    boundary: Statistics

    @property
    def score(self) -> float:
        """J&F, the mean of the means of J and F."""
        return (self.region.mean + self.boundary.mean) / 2

    def columns(self) -> dict[str, float]:
        """Return all values under the names used by the DAVIS evaluation."""
        return {
            "J&F-Mean": self.score,
            **{f"J-{name}": value for name, value in _named(self.region)},
            **{f"F-{name}": value for name, value in _named(self.boundary)},
        }


@dataclasses.dataclass(frozen=True)
class SequenceSummary:
    """A sequence in one result, with its averages and the scores behind them."""

    scores: SequenceScores
    objects: dict[int, Summary]
    groups: dict[int, Group | None]
    overall: Summary

    def frame_means(self) -> dict[str, tuple[float, float]]:
        """Return J and F by frame name in temporal order, averaged over the scored objects."""
        collected: dict[str, list[tuple[float, float]]] = {}
        for entry in self.scores.objects:
            for frame, j, f in zip(entry.frames, entry.region, entry.boundary, strict=True):
                collected.setdefault(frame, []).append((j, f))
        return {
            frame: (float(np.mean([j for j, _ in pairs])), float(np.mean([f for _, f in pairs])))
            for frame, pairs in sorted(collected.items(), key=lambda item: natural_key(item[0]))
        }


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """Scores of one result folder.

    name: short name, unique among the compared results.
    folder: path of the result folder.
    overall: average over all objects.
    groups: averages over objects seen and unseen in training.
    """

    name: str
    folder: str
    sequences: dict[str, SequenceSummary]
    overall: Summary
    groups: dict[Group, Summary]

    @property
    def benchmark_score(self) -> float:
        """The score by which the benchmark ranks methods.

        If there are both seen and unseen objects, it is G, the mean of J and F over both groups.
        Otherwise it is J&F.
        """
        if len(self.groups) == 2:
            return float(np.mean([group.score for group in self.groups.values()]))
        return self.overall.score


def summarize_run(
    name: str,
    folder: str,
    sequences: Sequence[SequenceScores],
    groups: Mapping[str, Mapping[int, Group | None]],
) -> RunSummary:
    """Compute all averages of one result.

    Args:
      groups: the group of every object, by sequence and id.
    """
    summaries = {s.name: _summarize_sequence(s, groups[s.name]) for s in sequences}
    objects = [
        (sequence.groups[object_id], summary)
        for sequence in summaries.values()
        for object_id, summary in sequence.objects.items()
    ]
    return RunSummary(
        name=name,
        folder=folder,
        sequences=summaries,
        overall=average(summary for _, summary in objects),
        groups={
            group: average(summary for own, summary in objects if own == group)
            for group in ("seen", "unseen")
            if any(own == group for own, _ in objects)
        },
    )


def average(summaries: Iterable[Summary]) -> Summary:
    """Return the mean of every statistic; all summaries have equal weight."""
    items = list(summaries)
    return Summary(
        region=_mean_statistics([item.region for item in items]),
        boundary=_mean_statistics([item.boundary for item in items]),
    )


def _summarize_sequence(
    scores: SequenceScores, groups: Mapping[int, Group | None]
) -> SequenceSummary:
    objects = {entry.object_id: _summarize_object(entry) for entry in scores.objects}
    own_groups = {object_id: groups.get(object_id) for object_id in objects}
    return SequenceSummary(scores, objects, own_groups, average(objects.values()))


def _summarize_object(scores: ObjectScores) -> Summary:
    return Summary(
        region=statistics(np.array(scores.region)), boundary=statistics(np.array(scores.boundary))
    )


def _mean_statistics(items: Sequence[Statistics]) -> Statistics:
    values = np.mean([dataclasses.astuple(item) for item in items], axis=0)
    return Statistics(*values.tolist())


def _named(values: Statistics) -> list[tuple[str, Any]]:
    return [(name.capitalize(), value) for name, value in dataclasses.asdict(values).items()]
