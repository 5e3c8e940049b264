"""A small report to be written in its several forms."""

from collections.abc import Mapping
from pathlib import Path

from s3_jax.benchmarks.protocols import PROTOCOLS, Group
from s3_jax.benchmarks.report import Report
from s3_jax.benchmarks.scoring import ObjectScores, SequenceScores
from s3_jax.benchmarks.summary import summarize_run


def entry(object_id: int, region: list[float], boundary: list[float]) -> ObjectScores:
    frames = [f"{t:05d}" for t in range(1, len(region) + 1)]
    return ObjectScores(object_id, frames, region, boundary)


def sequence(name: str, *objects: ObjectScores, missing=(), unscored=()) -> SequenceScores:
    return SequenceScores(name, list(objects), list(missing), list(unscored))


def report(
    *runs: tuple[str, list[SequenceScores]],
    protocol: str = "davis2017",
    groups: Mapping[str, Mapping[int, Group | None]] | None = None,
) -> Report:
    names = {s.name for _, sequences in runs for s in sequences}
    groups = groups or {name: {} for name in names}
    summaries = [summarize_run(name, f"runs/{name}", sequences, groups) for name, sequences in runs]
    return Report(PROTOCOLS[protocol], Path("truth"), summaries)


BEAR = sequence("bear", entry(1, [0.8, 0.6], [0.4, 0.2]), entry(2, [1.0, 1.0], [1.0, 1.0]))
BUS = sequence("bus", entry(1, [0.2, 0.4], [0.0, 0.2]))
WORSE_BEAR = sequence("bear", entry(1, [0.3, 0.1], [0.1, 0.1]), entry(2, [0.0, 0.0], [0.0, 0.0]))
