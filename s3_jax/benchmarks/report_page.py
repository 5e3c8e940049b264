"""Scores as one HTML file: tables, curves of J over time, pictures of the worst frames.

The file loads nothing, neither from the network nor from disk; the script only adds sorting and
values under the pointer.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from s3_jax.benchmarks import curves
from s3_jax.benchmarks.curves import COLOURS, Curve, curve_chart, spark_lines
from s3_jax.benchmarks.report import Report, percent
from s3_jax.benchmarks.report_assets import SCRIPT, STYLE
from s3_jax.benchmarks.summary import RunSummary, SequenceSummary
from s3_jax.benchmarks.worst_frames import WorstFrame
from s3_jax.media.image_files import natural_key
from s3_jax.media.writers import replacing

MOST_CURVES = 8
MOST_OPEN = 12  # as many sequences are shown unfolded
# Sequence -> frame -> a picture for each result.
Pictures = Mapping[str, Sequence[Sequence[WorstFrame]]]

GLOSSARY = {
    "J": "region similarity: intersection over union of predicted and annotated mask",
    "F": "boundary measure: harmonic mean of precision and recall of the outline",
    "J&F": "mean of J and F; all averages give every object the same weight",
    "Recall": "share of frames with a value above 50 %",
    "Decay": "mean of the first quarter of the frames minus mean of the last",
    "G": "mean of J and F of objects of seen and of unseen categories",
}


def write_page(path: Path, report: Report, pictures: Pictures) -> None:
    """Writes the HTML report.

    pictures: the worst frames of some or all sequences, to be shown with their curves.
    """
    title = f"{report.protocol.title} scores"
    plot = {
        "x": curves.LEFT,
        "y": curves.TOP,
        "width": curves.WIDTH - curves.LEFT - curves.RIGHT,
        "height": curves.HEIGHT - curves.TOP - curves.BOTTOM,
    }
    body = [
        _heading(title, report),
        *(f'<p class="note">{_text(note)}</p>' for note in report.notes),
        "<h2>Overall</h2>",
        _overall_table(report),
        "<h2>Sequences</h2>",
        _sequence_table(report),
        "<h2>Frame by frame</h2>",
        _picture_note(report, pictures),
        *(_details(report, name, pictures.get(name, ())) for name in report.worst_first()),
        "<h2>What the columns mean</h2>",
        _glossary(report),
    ]
    text = PAGE.format(
        title=_text(title),
        style=STYLE,
        body="\n".join(body),
        script=f"const PLOT = {json.dumps(plot)};{SCRIPT}",
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


def _heading(title: str, report: Report) -> str:
    sequences = report.runs[0].sequences.values()
    objects = sum(len(sequence.objects) for sequence in sequences)
    frames = sum(len(sequence.frame_means()) for sequence in sequences)
    counts = f"{len(sequences)} sequences, {objects} objects, {frames} scored frames"
    return (
        f"<h1>{_text(title)}</h1><p>{counts}</p>"
        f'<p class="muted">Rules: {_text(report.protocol.rules)}.<br>'
        f"Annotations: <code>{_text(report.annotations)}</code></p>"
    )


def _overall_table(report: Report) -> str:
    groups = ["G", "J seen", "F seen", "J unseen", "F unseen"] if report.grouped else []
    columns = [name.replace("-", " ") for name in report.runs[0].overall.columns()]
    header = ["Result", *groups, *(name.removesuffix(" Mean") for name in columns)]
    rows = [_overall_cells(report, place, run) for place, run in enumerate(report.runs)]
    return _table(header, rows)


def _overall_cells(report: Report, place: int, run: RunSummary) -> list[str]:
    name = f'<span class="dot c{place % COLOURS}"></span>' if len(report.runs) > 1 else ""
    cells = [f'<td title="{_text(run.folder)}">{name}{_text(run.name)}</td>']
    if report.grouped:
        cells.append(_score_cell(run.benchmark_score, "big"))
        for group in run.groups.values():
            cells += [_cell(group.region.mean), _cell(group.boundary.mean)]
    score, *others = run.overall.columns().values()
    return [*cells, _score_cell(score, "" if report.grouped else "big"), *map(_cell, others)]


def _sequence_table(report: Report) -> str:
    compared = len(report.runs) > 1
    scores = [f"J&F {run.name}" for run in report.runs] if compared else ["J&F"]
    rest = ["Spread"] if compared else ["J", "J Recall", "J Decay", "F", "F Recall", "F Decay"]
    header = ["Sequence", "Objects", "Frames", *scores, *rest, "J over time"]
    rows = [_sequence_cells(report, name) for name in report.worst_first()]
    return _table(header, rows, sortable=True)


def _sequence_cells(report: Report, name: str) -> list[str]:
    sequences = [run.sequences[name] for run in report.runs]
    means = sequences[0].frame_means()
    values = [sequence.overall.score for sequence in sequences]
    best = max(values) if len(values) > 1 else None
    cells = [
        f'<td><a href="#{_anchor(name)}">{_text(name)}</a></td>',
        f"<td>{len(sequences[0].objects)}</td>",
        f"<td>{len(means)}</td>",
        *(_score_cell(value, "best" if value == best else "") for value in values),
    ]
    if len(values) > 1:
        cells.append(_cell(max(values) - min(values)))
    else:
        cells += map(_cell, list(sequences[0].overall.columns().values())[1:])
    lines = [list(_means(sequence, 0).values()) for sequence in sequences]
    return [*cells, f"<td>{spark_lines(lines)}</td>"]


def _details(report: Report, name: str, worst: Sequence[Sequence[WorstFrame]]) -> str:
    sequences = [run.sequences[name] for run in report.runs]
    scores = " / ".join(percent(sequence.overall.score) for sequence in sequences)
    lines = _curves(report, name)
    frames = sorted({f for line in lines for f in line.values}, key=natural_key)
    shown = " open" if len(report.runs[0].sequences) <= MOST_OPEN else ""
    parts = [
        f'<details id="{_anchor(name)}"{shown}><summary>{_text(name)}'
        f'<span class="muted">J&amp;F {scores}</span></summary>',
        _legend(lines),
        f"<div>{curve_chart(f'J over time in {name}', frames, lines)}"
        f'<p class="readout">{_measures(lines)} in % over the scored frames</p></div>',
        _object_table(report, sequences) if len(sequences[0].objects) > 1 else "",
        *(_figures(report, frame) for frame in (worst if len(report.runs) > 1 else ())),
        _figures(report, [row[0] for row in worst]) if len(report.runs) == 1 and worst else "",
        "</details>",
    ]
    return "".join(parts)


def _measures(lines: Sequence[Curve]) -> str:
    return "J and F" if lines[-1].faint else "J"


def _curves(report: Report, name: str) -> list[Curve]:
    """J of each result; of each object, where there is one result; with F for one object."""
    sequences = [run.sequences[name] for run in report.runs]
    if len(sequences) > 1:
        return [
            Curve(run.name, _means(sequence, 0))
            for run, sequence in zip(report.runs, sequences, strict=True)
        ]
    objects = sequences[0].scores.objects
    if 1 < len(objects) <= MOST_CURVES:
        return [
            Curve(f"object {o.object_id}", dict(zip(o.frames, o.region, strict=True)))
            for o in objects
        ]
    return [Curve("J", _means(sequences[0], 0)), Curve("F", _means(sequences[0], 1), faint=True)]


def _means(sequence: SequenceSummary, which: int) -> dict[str, float]:
    return {frame: pair[which] for frame, pair in sequence.frame_means().items()}


def _legend(lines: Sequence[Curve]) -> str:
    entries = (
        f'<span class="c{place % COLOURS}"><span class="dot"></span>'
        f"<b>{_text(line.name)}</b></span>"
        for place, line in enumerate(lines)
    )
    return f'<div class="legend">{"".join(entries)}</div>'


def _object_table(report: Report, sequences: Sequence[SequenceSummary]) -> str:
    header = ["Object", "Result"] if len(sequences) > 1 else ["Object"]
    columns = [name.replace("-", " ").removesuffix(" Mean") for name in
               sequences[0].overall.columns()]  # fmt: skip
    rows = []
    for object_id in sequences[0].objects:
        for run, sequence in zip(report.runs, sequences, strict=True):
            group = sequence.groups[object_id]
            label = f"{object_id}" + (f" ({group})" if group else "")
            cells = [f"<td>{label}</td>"]
            cells += [f"<td>{_text(run.name)}</td>"] if len(sequences) > 1 else []
            score, *others = sequence.objects[object_id].columns().values()
            rows.append([*cells, _score_cell(score), *map(_cell, others)])
    return _table([*header, *columns], rows, sortable=True, card=False)


def _figures(report: Report, pictures: Sequence[WorstFrame]) -> str:
    """Frames of one result, or one frame of each result, side by side."""
    compared = len(report.runs) > 1
    names = [f"{run.name}, " for run in report.runs] if compared else [""] * len(pictures)
    figures = (
        f'<figure><img alt="" loading="lazy" '
        f'src="data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}">'
        f"<figcaption>{_text(name)}frame {_text(picture.frame)}: J {percent(picture.region)}, "
        f"F {percent(picture.boundary)}</figcaption></figure>"
        for name, picture in zip(names, pictures, strict=True)
    )
    kind = f'class="frames compare" style="--runs:{len(names)}"' if compared else 'class="frames"'
    return f"<div {kind}>{''.join(figures)}</div>"


def _picture_note(report: Report, pictures: Pictures) -> str:
    if not pictures:
        return '<p class="muted">No pictures: none asked for, or no images found (--images).</p>'
    rest = "" if len(pictures) == len(report.runs[0].sequences) else ", of the worst sequences only"
    return (
        '<p class="muted">Pictures show the worst frames'
        f"{rest}: the prediction in colour, the annotation as a white line.</p>"
    )


def _glossary(report: Report) -> str:
    entries = (
        f"<dt>{_text(name)}</dt><dd>{_text(meaning)}</dd>"
        for name, meaning in GLOSSARY.items()
        if name != "G" or report.grouped
    )
    return f'<dl class="card">{"".join(entries)}</dl>'


def _table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    sortable: bool = False,
    card: bool = True,
) -> str:
    plain = {"J over time"}
    cells = (f"<th{' data-plain' if n in plain else ''}>{_text(n)}</th>" for n in header)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    table = (
        f"<table{' class=sortable' if sortable else ''}><thead><tr>{''.join(cells)}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )
    return f'<div class="{"card" if card else "scroll"}">{table}</div>'


def _score_cell(value: float, kind: str = "") -> str:
    shown = percent(value)
    return f'<td class="score {kind}" style="--v:{max(0.0, value):.3f}">{shown}</td>'


def _cell(value: float) -> str:
    return f"<td>{percent(value)}</td>"


def _anchor(name: str) -> str:
    return _text(f"sequence-{name}".replace(" ", "-"))
