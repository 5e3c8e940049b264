"""A session that runs over a video in one direction, from the nearest possible start.

Positions increase along the direction: forwards, a frame's position is its index, backwards the
negative index. Everything here uses positions, so both directions share the same code.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import UInt8

from s3_jax.annotation.given import Along
from s3_jax.annotation.snapshots import Snapshots
from s3_jax.propagation.ahead import encode_ahead
from s3_jax.propagation.session import FrameResult, Session

SLACK = 4  # prefer a snapshot up to this many intervals before the anchor, for its context


@dataclasses.dataclass(frozen=True)
class Chain:
    """One direction of a video.

    direction: 1 or -1.
    snapshots: states of the session to return to.
    """

    session: Session
    direction: int
    snapshots: Snapshots

    def run(
        self,
        given: Along,
        span: tuple[int, int],
        image: Callable[[int], UInt8[np.ndarray, "h w 3"] | None],
        stop: Callable[[], bool],
    ) -> Iterator[tuple[int, FrameResult]]:
        """Yield the position and the result of every frame in a span, in order.

        Frames before the span that introduce its objects are processed but not yielded. A span
        before the first given mask yields nothing.

        Args:
          given: masks of the whole video.
          span: first and last position.
          image: returns the frame at a position, or None for an unreadable one, which is skipped.
            On CPUs it is called by another thread, up to three frames ahead.
          stop: called before every frame; returns True to end the run.
        """
        first, last = span
        start = self._begin(given, first, last)
        pictures = ((position, image(position)) for position in range(start, last + 1))
        ahead = encode_ahead(self.session, pictures, lambda pair: pair[1])
        with contextlib.closing(ahead):
            for (position, picture), encoded in ahead:
                if stop():
                    self._keep(position - 1, position > start)
                    return
                if picture is None:
                    continue
                self._give(given, position)
                result = self.session.step(encoded)
                self._keep(position, position % self.snapshots.every == 0 or position == last)
                if position >= first:
                    yield position, result

    def forget(self, position: int, ids: set[int], given: Along) -> None:
        """Drop the snapshots that become outdated when masks of some ids change at a position.

        These are the snapshots up to the next position whose given masks show the object.
        """
        for id_ in ids:
            later = (p for p in given.positions if p > position and id_ in given.shown(p))
            self.snapshots.drop(position, min(later, default=None))

    def _give(self, given: Along, position: int) -> None:
        """Pass the masks of a position to the session; an object's first mask must not be empty."""
        useful = given.shown(position) | (given.ids(position) & set(self.session.object_ids))
        if useful:
            masks = given.masks(position)
            self.session.add({id_: masks[id_] for id_ in sorted(useful)})

    def _begin(self, given: Along, first: int, last: int) -> int:
        """Bring the session to a state before the span; return the position to start at."""
        anchor = anchor_of(given, first, last)
        if anchor is None:
            return last + 1
        snapshot = self.snapshots.before(first)
        if snapshot and snapshot[0] >= anchor - SLACK * self.snapshots.every:
            start = snapshot[0] + 1
            self.session.restore(snapshot[1])
            known = given.given.object_ids
            self.session.delete([id_ for id_ in self.session.object_ids if id_ not in known])
        else:
            start = anchor
            self.session.reset()
        self._reserve(given, start, last)
        return start

    def _reserve(self, given: Along, start: int, last: int) -> None:
        """Reserve capacity for all objects of the video, the same in both directions.

        No frame then waits for the compiler, and both directions share one compiled program.
        """
        ways = [Along(given.given, direction) for direction in (1, -1)]
        whole = [_entries(way, way.positions[0], way.positions[-1]) for way in ways]
        entered = {p for i, p in _entries(given, start, last).items()
                   if i not in self.session.object_ids}  # fmt: skip
        buckets = max(len(set(entries.values())) for entries in whole)
        buckets = max(buckets, self.session.buckets + len(entered))
        self.session.reserve(len(given.given.object_ids), buckets)

    def _keep(self, position: int, due: bool) -> None:
        if due and self.session.object_ids:
            self.snapshots.keep(position, self.session.snapshot())


def anchor_of(given: Along, first: int, last: int) -> int | None:
    """Return the position from which all objects of a span are given, as far as possible.

    The result is None if there is no mask before the end of the span.
    """
    nearest: dict[int, int] = {}
    for position in (p for p in given.positions if p <= last):
        for id_ in given.shown(position):
            if position <= first or id_ not in nearest:
                nearest[id_] = position
    return min(nearest.values(), default=None)


def _entries(given: Along, first: int, last: int) -> dict[int, int]:
    """Return, for each object, the first position within a span that has a mask of it."""
    entries: dict[int, int] = {}
    for position in (p for p in given.positions if first <= p <= last):
        for id_ in given.shown(position):
            entries.setdefault(id_, position)
    return entries
