"""Scores as a table in the terminal, as CSV and as JSON."""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from s3_jax.benchmarks.protocols import Protocol
from s3_jax.benchmarks.summary import RunSummary, SequenceSummary, Summary
from s3_jax.files import replacing
from s3_jax.media import writers
from s3_jax.media.image_files import shortened

MOST_ROWS = 40
COLUMNS = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
CSV_HEADER = ("result", "level", "sequence", "object", "group", "frames", *COLUMNS)
Row = list[str]


@dataclasses.dataclass(frozen=True)
class Report:
    """Scores of one or more results against the same annotations.

    annotations: the folder they were scored against.
    """

    protocol: Protocol
    annotations: Path
    runs: Sequence[RunSummary]

    @property
    def grouped(self) -> bool:
        """True if objects seen and unseen in training are averaged separately."""
        return len(self.runs[0].groups) == 2

    @property
    def notes(self) -> list[str]:
        """Caveats that readers need to interpret the scores, one sentence each."""
        return [*_missing_notes(self.runs), *_unscored_notes(self)]

    def worst_first(self) -> list[str]:
        """Return the sequence names, ordered by J&F over all results, lowest first."""
        return sorted(
            self.runs[0].sequences,
            key=lambda name: (sum(run.sequences[name].overall.score for run in self.runs), name),
        )


def terminal_table(report: Report) -> str:
    """Format the overall scores of every result and the J&F of the worst sequences, in percent."""
    overall = [_overall_header(report), *(_overall_row(report, run) for run in report.runs)]
    lines = [report.protocol.title + ": " + report.protocol.rules, "", *_aligned(overall), ""]
    names = report.worst_first()
    rows = [_sequence_header(report), *(_sequence_row(report, name) for name in names[:MOST_ROWS])]
    lines += _aligned(rows)
    if len(names) > MOST_ROWS:
        lines.append(f"... and {len(names) - MOST_ROWS} better sequences: see the files")
    return "\n".join([*lines, *(f"Note: {note}" for note in report.notes)])


def write_csv(path: Path, report: Report) -> None:
    """Write a line for each result as a whole and each group, sequence and object (0 to 1)."""
    writers.write_csv(path, [CSV_HEADER, *(row for run in report.runs for row in _csv_rows(run))])


def write_scores_json(path: Path, report: Report) -> None:
    """Write all scores, down to J and F of every object on every frame (0 to 1)."""
    values = {
        "protocol": report.protocol.name,
        "rules": report.protocol.rules,
        "annotations": str(report.annotations),
        "notes": report.notes,
        "results": [_run_values(run) for run in report.runs],
    }
    text = _lists_on_one_line(json.dumps(values, indent=1))
    with replacing(path) as temporary:
        temporary.write_text(text + "\n")


def percent(value: float) -> str:
    """Format a score as a percentage with one decimal."""
    return f"{100 * value:.1f}"


def _overall_header(report: Report) -> Row:
    groups = ["G", "J seen", "F seen", "J unseen", "F unseen"] if report.grouped else []
    return ["result", *groups, "J&F", *(column.replace("-", " ") for column in COLUMNS[1:])]


def _overall_row(report: Report, run: RunSummary) -> Row:
    groups: list[float] = []
    if report.grouped:
        means = [(group.region.mean, group.boundary.mean) for group in run.groups.values()]
        groups = [run.benchmark_score, *(value for pair in means for value in pair)]
    return [run.name, *map(percent, [*groups, *run.overall.columns().values()])]


def _sequence_header(report: Report) -> Row:
    if len(report.runs) > 1:
        return ["sequence", "objects", *(f"J&F {run.name}" for run in report.runs)]
    return ["sequence", "objects", "J&F", "J", "F"]


def _sequence_row(report: Report, name: str) -> Row:
    sequences = [run.sequences[name] for run in report.runs]
    first = sequences[0].overall
    values = [sequence.overall.score for sequence in sequences]
    if len(sequences) == 1:
        values += [first.region.mean, first.boundary.mean]
    return [name, str(len(sequences[0].objects)), *map(percent, values)]


def _aligned(rows: Sequence[Row]) -> list[str]:
    """Align names to the left and numbers to the right, with a rule below the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def _csv_rows(run: RunSummary) -> Iterator[list[Any]]:
    frames = sum(_frame_count(sequence) for sequence in run.sequences.values())
    yield _csv_row(run, "overall", frames, run.overall)
    for group, summary in run.groups.items():
        yield _csv_row(run, "group", "", summary, group=group)
    for name, sequence in run.sequences.items():
        yield _csv_row(run, "sequence", _frame_count(sequence), sequence.overall, sequence=name)
        for entry in sequence.scores.objects:
            i = entry.object_id
            yield _csv_row(run, "object", len(entry.frames), sequence.objects[i], sequence=name,
                           object_id=i, group=sequence.groups[i] or "")  # fmt: skip


def _csv_row(
    run: RunSummary,
    level: str,
    frames: int | str,
    summary: Summary,
    sequence: str = "",
    object_id: int | str = "",
    group: str = "",
) -> list[Any]:
    values = (summary.columns()[column] for column in COLUMNS)
    return [run.name, level, sequence, object_id, group, frames, *values]


def _frame_count(sequence: SequenceSummary) -> int:
    return len({frame for entry in sequence.scores.objects for frame in entry.frames})


def _run_values(run: RunSummary) -> dict[str, Any]:
    values: dict[str, Any] = {"name": run.name, "folder": run.folder}
    if len(run.groups) == 2:
        values["G"] = run.benchmark_score
    values["overall"] = run.overall.columns()
    values["groups"] = {group: summary.columns() for group, summary in run.groups.items()}
    values["sequences"] = {name: _sequence_values(s) for name, s in run.sequences.items()}
    return values


def _sequence_values(sequence: SequenceSummary) -> dict[str, Any]:
    return {
        **sequence.overall.columns(),
        "missing": sequence.scores.missing,
        "objects": {
            str(entry.object_id): {
                **sequence.objects[entry.object_id].columns(),
                "group": sequence.groups[entry.object_id],
                "frames": entry.frames,
                "J": entry.region,
                "F": entry.boundary,
            }
            for entry in sequence.scores.objects
        },
    }


def _lists_on_one_line(text: str) -> str:
    """Put each innermost list of indented JSON, which may be long, on one line."""
    return re.sub(r"\[\n[^\[\]{}]*\]", lambda match: re.sub(r"\s*\n\s*", " ", match.group()), text)


def _missing_notes(runs: Sequence[RunSummary]) -> Iterator[str]:
    for run in runs:
        missing = {name: len(s.scores.missing) for name, s in run.sequences.items()}
        incomplete = [name for name, count in missing.items() if count]
        if incomplete:
            yield (
                f"{run.name} lacks {sum(missing.values())} masks in {len(incomplete)} sequences, "
                "which were scored as empty"
            )


def _unscored_notes(report: Report) -> Iterator[str]:
    sequences = report.runs[0].sequences.values()
    left_out = [s.scores.name for s in sequences if s.scores.unscored]
    if left_out:
        why = {
            "first_frame": "they are not in the first frame; --protocol=generic scores them too",
            "any_frame": "they have no scored frame after their first",
        }
        yield (
            f"{report.protocol.title} leaves out objects of {shortened(left_out)}: "
            f"{why[report.protocol.objects]}"
        )
