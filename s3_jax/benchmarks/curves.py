"""Curves over time as SVG."""

import dataclasses
import html
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 760, 190
LEFT, RIGHT, TOP, BOTTOM = 36, 12, 10, 24
SPARK_WIDTH, SPARK_HEIGHT = 120, 22
TICKS = 5
COLOURS = 8  # classes c0 to c7 of the page's style


@dataclasses.dataclass(frozen=True)
class Curve:
    """A named curve: value, from 0 to 1, by frame name; `faint` for one of minor interest."""

    name: str
    values: Mapping[str, float]
    faint: bool = False


def curve_chart(title: str, frames: Sequence[str], curves: Sequence[Curve]) -> str:
    """An SVG chart of curves over the given frames, 0 to 100 %."""
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'data-frames="{html.escape("/".join(frames), quote=True)}">',
        f"<title>{html.escape(title)}</title>",
        *(_grid_line(value) for value in (0.0, 0.25, 0.5, 0.75, 1.0)),
        *_frame_ticks(frames),
        *(_chart_line(place, curve, frames) for place, curve in enumerate(curves)),
        "</svg>",
    ]
    return "".join(parts)


def spark_lines(lines: Sequence[Sequence[float]]) -> str:
    """A small SVG of curves without axes, for a table; values from 0 to 1."""
    drawn = (
        f'<polyline class="c{place % COLOURS}" points="{_spark_points(values)}"/>'
        for place, values in enumerate(lines)
    )
    return (
        f'<svg class="spark" viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}" aria-hidden="true">'
        f"{''.join(drawn)}</svg>"
    )


def _spark_points(values: Sequence[float]) -> str:
    step = (SPARK_WIDTH - 2) / max(len(values) - 1, 1)
    return " ".join(
        f"{1 + index * step:.1f},{1 + (1 - value) * (SPARK_HEIGHT - 2):.1f}"
        for index, value in enumerate(values)
    )


def _chart_line(place: int, curve: Curve, frames: Sequence[str]) -> str:
    points = [
        f"{_x(index, len(frames)):.1f},{_y(curve.values[frame]):.1f}"
        for index, frame in enumerate(frames)
        if frame in curve.values
    ]
    name = html.escape(curve.name, quote=True)
    attributes = (
        f'class="line c{place % COLOURS}{" faint" if curve.faint else ""}" data-name="{name}"'
    )
    if len(points) == 1:
        x, y = points[0].split(",")
        return f'<circle {attributes} cx="{x}" cy="{y}" r="3"/>'
    return f'<polyline {attributes} points="{" ".join(points)}"/>'


def _grid_line(value: float) -> str:
    y = _y(value)
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{100 * value:.0f}</text>'
    )


def _frame_ticks(frames: Sequence[str]) -> list[str]:
    last = len(frames) - 1
    places = sorted({round(last * tick / (TICKS - 1)) for tick in range(TICKS)})
    anchors = {0: "start", last: "end"}
    return [
        f'<text x="{_x(place, len(frames)):.1f}" y="{HEIGHT - 6}" '
        f'text-anchor="{anchors.get(place, "middle")}">{html.escape(frames[place])}</text>'
        for place in places
    ]


def _x(index: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (index / (count - 1) if count > 1 else 0.5)


def _y(value: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value)
