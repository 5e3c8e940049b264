"""Line charts drawn with Matplotlib, with logarithmic axes and one line per series."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

WIDTH, HEIGHT = 720, 480
LEFT, RIGHT, TOP, BOTTOM = 80, 24, 48, 56
COLOURS = ((180, 100, 30), (40, 120, 220), (60, 150, 60), (150, 60, 140))  # blue green red


@dataclasses.dataclass(frozen=True)
class Series:
    """A named line through (x, y), both above 0."""

    name: str
    points: Sequence[tuple[float, float]]


def line_chart(
    title: str,
    x_name: str,
    y_name: str,
    series: Sequence[Series],
    ticks: Sequence[float] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the chart as RGB.

    Args:
      ticks: values to label on the x axis; by default every x of the first series.

    Raises:
      ValueError: there are no points, or a coordinate is not above 0.
    """
    points = [point for one in series for point in one.points]
    if not points or min(min(point) for point in points) <= 0:
        raise ValueError("a chart on logarithmic axes needs points, all above 0")
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100)
    axes = log_axes(figure, points, [x for x, _ in series[0].points] if ticks is None else ticks)
    axes.set(title=title, xlabel=x_name, ylabel=y_name)
    for (blue, green, red), one in zip(COLOURS, series, strict=False):
        colour = (red / 255, green / 255, blue / 255)
        axes.plot(*zip(*one.points, strict=True), "o-", color=colour, label=one.name)
    axes.legend(loc="upper right", frameon=False, borderaxespad=0.1)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def log_axes(figure: Figure, points: Sequence[tuple[float, float]], ticks: Sequence[float]) -> Axes:
    """Add empty axes that cover the points, with a grid at round numbers."""
    box = (LEFT / WIDTH, BOTTOM / HEIGHT, 1 - (LEFT + RIGHT) / WIDTH, 1 - (TOP + BOTTOM) / HEIGHT)
    axes = figure.add_axes(box)
    across, down = zip(*points, strict=True)
    axes.set(xscale="log", xlim=(min(across) / 1.05, max(across) * 1.05))
    axes.set(yscale="log", ylim=(min(down) / 1.4, max(down) * 1.4))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.grid(color="0.87")
    return axes
