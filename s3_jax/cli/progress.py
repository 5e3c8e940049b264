"""Progress bar over the frames of many videos, with the remaining time."""

import contextlib
import sys
import threading
from collections.abc import Iterator

from tqdm import tqdm

BAR_FORMAT = (
    "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}]"
)


class FrameBar:
    """Thread-safe frame counter; its speed excludes frames of earlier runs."""

    def __init__(self, bar: tqdm):
        self._bar = bar
        self._lock = threading.Lock()

    def found(self, frames: int) -> None:
        """Add frames that an earlier run finished."""
        with self._lock:
            self._bar.initial += frames
            self._bar.update(frames)

    def advanced(self) -> None:
        """Count one more finished frame."""
        with self._lock:
            self._bar.update()

    def reached(self, frames: int) -> None:
        """Set the total number of finished frames, which falls if frames are processed again."""
        with self._lock:
            self._bar.update(frames - self._bar.n)


@contextlib.contextmanager
def frame_bar(total: int) -> Iterator[FrameBar]:
    """Show a bar on a terminal, or print a line every ten seconds elsewhere."""
    with tqdm(
        desc="predict",
        total=total,
        mininterval=0.2 if sys.stderr.isatty() else 10,
        dynamic_ncols=True,
        bar_format=BAR_FORMAT,
        unit=" frames",
        smoothing=0,
    ) as bar:
        yield FrameBar(bar)
