"""Curves over time, and the coordinates of their points in an SVG picture."""

import dataclasses
from collections.abc import Iterable, Mapping

TICKS = 5


@dataclasses.dataclass(frozen=True)
class Curve:
    """A named curve, with values from 0 to 1 by frame name; `faint` marks one of minor interest."""

    name: str
    values: Mapping[str, float]
    faint: bool = False


@dataclasses.dataclass(frozen=True)
class Plot:
    """A picture of width x height units, with margins around the area of the curves."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int

    @property
    def box(self) -> dict[str, int]:
        """The area within the margins."""
        return {
            "x": self.left,
            "y": self.top,
            "width": self.width - self.left - self.right,
            "height": self.height - self.top - self.bottom,
        }

    def x(self, index: int, count: int) -> float:
        """Return the x position of a frame among `count`."""
        return self.left + self.box["width"] * (index / (count - 1) if count > 1 else 0.5)

    def y(self, value: float) -> float:
        """Return the y position of a value from 0 to 1."""
        return self.top + self.box["height"] * (1 - value)

    def points(self, frames: Iterable[str], values: Mapping[str, float]) -> str:
        """Return the points of an SVG polyline over the frames that have a value."""
        frames = list(frames)
        return " ".join(
            f"{self.x(index, len(frames)):.1f},{self.y(values[frame]):.1f}"
            for index, frame in enumerate(frames)
            if frame in values
        )

    def ticks(self, count: int) -> list[tuple[int, str]]:
        """Return the indices of the frames named below the axis, and their labels' text anchors."""
        anchors = {0: "start", count - 1: "end"}
        places = sorted({round((count - 1) * tick / (TICKS - 1)) for tick in range(TICKS)})
        return [(place, anchors.get(place, "middle")) for place in places]


CHART = Plot(760, 190, left=36, right=12, top=10, bottom=24)
SPARK = Plot(120, 22, left=1, right=1, top=1, bottom=1)
