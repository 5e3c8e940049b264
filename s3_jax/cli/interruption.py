"""Clean shutdown of a command when it is interrupted."""

import contextlib
import signal
from collections.abc import Iterator, Mapping
from types import FrameType


@contextlib.contextmanager
def interruption() -> Iterator[list[int]]:
    """Yield a list that receives the first SIGINT or SIGTERM; a second one ends the process."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        _restore(before)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        _restore(before)


def _restore(handlers: Mapping[signal.Signals, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)  # type: ignore[arg-type]
