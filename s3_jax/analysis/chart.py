"""Line charts as pictures, drawn with OpenCV: logarithmic axes, one line per series."""

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

WIDTH, HEIGHT = 720, 480
LEFT, RIGHT, TOP, BOTTOM = 80, 24, 48, 56
INK, GRID = (40, 40, 40), (222, 222, 222)
COLOURS = ((180, 100, 30), (40, 120, 220), (60, 150, 60), (150, 60, 140))  # blue green red
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclasses.dataclass(frozen=True)
class Series:
    """A named line through (x, y), both above 0."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class _Axis:
    """A logarithmic scale: values low to high at pixels start to end."""

    low: float
    high: float
    start: int
    end: int

    def place(self, value: float) -> int:
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return round(self.start + part * (self.end - self.start))


def line_chart(
    title: str,
    x_name: str,
    y_name: str,
    series: Sequence[Series],
    ticks: Sequence[float] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """The chart, RGB.

    Args:
      ticks: values written on the x axis; every x of the first series if not given.

    Raises:
      ValueError: there is no point, or one that is not above 0.
    """
    points = [point for one in series for point in one.points]
    if not points or min(min(point) for point in points) <= 0:
        raise ValueError("a chart on logarithmic axes needs points, all above 0")
    across = _axis([x for x, _ in points], LEFT, WIDTH - RIGHT, spare=1.05)
    down = _axis([y for _, y in points], HEIGHT - BOTTOM, TOP, spare=1.4)
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    for x in [x for x, _ in series[0].points] if ticks is None else ticks:
        _tick(canvas, (across.place(x), HEIGHT - BOTTOM), (across.place(x), TOP), _number(x), 20)
    for y in _round_values(down.low, down.high):
        at = down.place(y)
        _tick(canvas, (LEFT, at), (WIDTH - RIGHT, at), _number(y), 0)
    for place, one in enumerate(series):
        _line(canvas, one, across, down, place)
    _write(canvas, title, (LEFT, 28), 0.6)
    _write(canvas, x_name, (WIDTH // 2 - 40, HEIGHT - 12), 0.45)
    _write(canvas, y_name, (6, TOP - 8), 0.45)
    return np.ascontiguousarray(canvas[..., ::-1])


def _axis(values: Sequence[float], start: int, end: int, spare: float) -> _Axis:
    return _Axis(min(values) / spare, max(values) * spare, start, end)


def _round_values(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within a range."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [step * 10.0**power for power in range(first, last + 1) for step in (1, 2, 5)]
    return [value for value in found if low <= value <= high]


def _line(canvas: np.ndarray, series: Series, across: _Axis, down: _Axis, place: int) -> None:
    colour = COLOURS[place % len(COLOURS)]
    places = [(across.place(x), down.place(y)) for x, y in series.points]
    cv2.polylines(canvas, [np.array(places, np.int32)], False, colour, 2, cv2.LINE_AA)
    for at in places:
        cv2.circle(canvas, at, 4, colour, -1, cv2.LINE_AA)
    _write(canvas, series.name, (WIDTH - 220, TOP + 18 + 18 * place), 0.45, colour)


def _tick(
    canvas: np.ndarray, start: tuple[int, int], end: tuple[int, int], text: str, below: int
) -> None:
    cv2.line(canvas, start, end, GRID, 1)
    offset = (-4 * len(text), below) if below else (-10 - 9 * len(text), 5)
    _write(canvas, text, (start[0] + offset[0], start[1] + offset[1]), 0.45)


def _write(
    canvas: np.ndarray, text: str, at: tuple[int, int], size: float,
    colour: tuple[int, int, int] = INK,
) -> None:  # fmt: skip
    cv2.putText(canvas, text, at, FONT, size, colour, 1, cv2.LINE_AA)


def _number(value: float) -> str:
    return f"{value:g}"
