"""Ending a run in good order when it is asked to."""

import signal
from types import FrameType
from typing import Any


class StopRequest:
    """Notes SIGTERM and SIGINT while it is open, a context manager; a second one ends at once.

    requested: whether the run is to end after the step it is at.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
