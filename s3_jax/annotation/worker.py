"""The one thread that owns the session: it follows objects while everything else goes on."""

import collections
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from absl import logging
from jaxtyping import Bool

from s3_jax.errors import InputError, reason

Given = dict[int, dict[int, str]]  # run lengths by frame and object id


@runtime_checkable
class Follower(Protocol):
    """The part of `Annotator` that is used here."""

    def annotate(self, index: int, masks: Mapping[int, Bool[np.ndarray, "h w"]]) -> Any: ...

    def withdraw(self, index: int, ids: Iterable[int]) -> Any: ...

    def propagate(
        self, first: int, last: int, *, both_directions: bool, stop: Callable[[], bool]
    ) -> Iterator[Any]: ...


@dataclasses.dataclass(frozen=True)
class Span:
    """Frames to follow objects over; backwards: also before their first mask."""

    first: int
    last: int
    backwards: bool


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a span is. rate: frames a second lately; 0 before the second frame."""

    doing: str
    done: int = 0
    total: int = 0
    rate: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For the page; `left` in seconds, None where that is not known."""
        left = (self.total - self.done) / self.rate if self.rate else None
        return {"type": "progress", **dataclasses.asdict(self), "left": left}


class Worker:
    """Runs spans one after the other.

    load: makes the follower, in the worker's thread, when the first span comes.
    update: gives the follower what people made since the last time; called before a span.
    found: takes each frame's result. report: takes progress. failed: takes a problem in words.
    """

    def __init__(
        self,
        load: Callable[[], Follower],
        update: Callable[[Follower], None],
        found: Callable[[Any], None],
        report: Callable[[Progress], None],
        failed: Callable[[str], None],
    ) -> None:
        self._load, self._update, self._found = load, update, found
        self._report, self._failed = report, failed
        self._spans: queue.SimpleQueue[Span | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._follower: Follower | None = None
        self._pace: collections.deque[float] = collections.deque(maxlen=12)
        self.progress = Progress("")
        self._thread = threading.Thread(target=self._work, name="session", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Tell whether a span is being followed."""
        return bool(self.progress.doing)

    def follow(self, span: Span) -> None:
        """Begin a span.

        Raises:
          InputError: another one is being followed.
        """
        if self.busy:
            raise InputError("objects are being followed already: stop that first")
        self._stop.clear()
        self._say(Progress("Starting", 0, span.last - span.first + 1))
        self._spans.put(span)

    def stop(self) -> None:
        """End the span at the next frame; what was found stays."""
        self._stop.set()

    def close(self) -> None:
        """Stop, and end the thread."""
        self._stop.set()
        self._spans.put(None)
        self._thread.join(timeout=30)

    def _work(self) -> None:
        while (span := self._spans.get()) is not None:
            try:
                self._run(span)
            except (InputError, OSError) as error:
                self._failed(reason(error))
            except Exception as error:  # the page must hear of it, and the next span may do
                logging.exception("following objects failed")
                self._failed(f"{type(error).__name__}: {reason(error)} (an error in the program)")
            finally:
                self._say(Progress(""))

    def _run(self, span: Span) -> None:
        total = span.last - span.first + 1
        if self._follower is None:
            self._say(Progress("Loading the network", 0, total))
            self._follower = self._load()
        self._update(self._follower)
        self._say(Progress("Following", 0, total))
        self._pace.clear()
        results = self._follower.propagate(
            span.first, span.last, both_directions=span.backwards, stop=self._stop.is_set
        )
        for done, found in enumerate(results, 1):
            self._found(found)
            self._pace.append(time.monotonic())
            self._say(Progress("Following", done, total, self._rate()))

    def _rate(self) -> float:
        spent = self._pace[-1] - self._pace[0]
        return (len(self._pace) - 1) / spent if spent > 0 else 0.0

    def _say(self, progress: Progress) -> None:
        self.progress = progress
        self._report(progress)
