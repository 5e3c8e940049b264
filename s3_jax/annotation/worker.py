"""The thread that owns the session and propagates masks in the background."""

import collections
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

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

    def due(self) -> list[tuple[int, int]]: ...

    def propagate(
        self, first: int, last: int, *, both_directions: bool, stop: Callable[[], bool]
    ) -> Iterator[Any]: ...


@dataclasses.dataclass(frozen=True)
class Span:
    """A span of frames to propagate over; if `backwards`, also from masks on later frames."""

    first: int
    last: int
    backwards: bool


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a span; `rate` is recent frames per second, 0 before the second frame."""

    doing: str
    done: int = 0
    total: int = 0
    rate: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the progress for the page; `left` is in seconds, None if unknown."""
        left = (self.total - self.done) / self.rate if self.rate else None
        return {"type": "progress", **dataclasses.asdict(self), "left": left}


class Worker:
    """Worker thread that propagates masks over spans of frames.

    load: creates the follower; called in the worker's thread when the first span arrives.
    update: passes the user's changes to the follower before each span, and returns the frames that
      have masks.
    found: receives the result of each frame.
    report: receives the progress.
    failed: receives error messages.
    """

    def __init__(
        self,
        load: Callable[[], Follower],
        update: Callable[[Follower], list[int]],
        found: Callable[[Any], None],
        report: Callable[[Progress], None],
        failed: Callable[[str], None],
    ) -> None:
        self._load, self._update, self._found = load, update, found
        self._report, self._failed = report, failed
        self._jobs: queue.SimpleQueue[Span | Literal["due"] | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._follower: Follower | None = None
        self._pace: collections.deque[float] = collections.deque(maxlen=12)
        self.progress = Progress("")
        self._thread = threading.Thread(target=self._work, name="session", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """True while a span is in progress."""
        return bool(self.progress.doing)

    def follow(self, job: Span | Literal["due"]) -> None:
        """Start a span or, for "due", all frames whose results are missing or outdated.

        Raises:
          InputError: a span is already in progress.
        """
        if self.busy:
            raise InputError("objects are already being followed: stop first")
        self._stop.clear()
        self._say(Progress("Starting"))
        self._jobs.put(job)

    def stop(self) -> None:
        """End the span at the next frame, keeping the results so far."""
        self._stop.set()

    def close(self) -> None:
        """Stop and end the thread."""
        self._stop.set()
        self._jobs.put(None)
        self._thread.join(timeout=30)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._run(job)
            except (InputError, OSError) as error:
                self._failed(reason(error))
            except Exception as error:  # report it to the page; the next span may succeed
                logging.exception("following objects failed")
                self._failed(f"{type(error).__name__}: {reason(error)} (an error in the program)")
            finally:
                self._say(Progress(""))

    def _run(self, job: Span | Literal["due"]) -> None:
        if self._follower is None:
            self._say(Progress("Loading the network"))
            self._follower = self._load()
        given = set(self._update(self._follower))
        spans = [job] if isinstance(job, Span) else [Span(*s, True) for s in self._follower.due()]
        if not given or not spans:
            raise InputError("nothing has changed since objects were last followed")
        total = sum(_steps(span, given) for span in spans)
        self._say(Progress("Following", 0, total))
        self._pace.clear()
        for done, found in enumerate(self._results(self._follower, spans), 1):
            self._found(found)
            self._pace.append(time.monotonic())
            self._say(Progress("Following", min(done, total), total, self._rate()))

    def _results(self, follower: Follower, spans: list[Span]) -> Iterator[Any]:
        for span in spans:
            yield from follower.propagate(
                span.first, span.last, both_directions=span.backwards, stop=self._stop.is_set
            )

    def _rate(self) -> float:
        spent = self._pace[-1] - self._pace[0]
        return (len(self._pace) - 1) / spent if spent > 0 else 0.0

    def _say(self, progress: Progress) -> None:
        self.progress = progress
        self._report(progress)


def _steps(span: Span, given: set[int]) -> int:
    """Return the number of results of a span; a frame between given ones has two."""
    inside = range(span.first, span.last + 1)
    others = [frame for frame in inside if frame not in given]
    forward = sum(frame > min(given) for frame in others)
    backward = sum(frame < max(given) for frame in others) if span.backwards else 0
    return len(inside) - len(others) + forward + backward
