"""A session run over the frames of a video in one direction, from the nearest possible start.

Positions count along the direction: a frame's index forwards, its negative backwards. Everything
here uses positions, so both directions share the same code.
"""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import UInt8

from s3_jax.annotation.given import Along
from s3_jax.annotation.snapshots import Snapshots
from s3_jax.propagation.session import FrameResult, Session

SLACK = 4  # snapshot intervals before the anchor for which a snapshot's context is worth it


@dataclasses.dataclass(frozen=True)
class Chain:
    """One direction of a video.

    direction: 1 or -1.
    snapshots: states to return to.
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
        """Yield the position and the result of every frame of a span, in order.

        Frames before the span that are needed to know its objects are processed but not yielded. A
        span before the first given mask yields nothing.

        Args:
          given: masks of the whole video.
          span: first and last position.
          image: returns the frame at a position, or None for an unreadable one, which is skipped.
          stop: called before every frame; True ends the run.
        """
        first, last = span
        start = self._begin(given, first, last)
        for position in range(start, last + 1):
            if stop():
                self._keep(position - 1, position > start)
                return
            picture = image(position)
            if picture is None:
                continue
            self._give(given, position)
            result = self.session.step(picture)
            self._keep(position, position % self.snapshots.every == 0 or position == last)
            if position >= first:
                yield position, result

    def forget(self, position: int, ids: set[int], given: Along) -> None:
        """Drop the snapshots that new masks of some ids at a position make obsolete.

        These are the snapshots up to the next position that shows the object.
        """
        for id_ in ids:
            later = (p for p in given.positions if p > position and id_ in given.shown(p))
            self.snapshots.drop(position, min(later, default=None))

    def _give(self, given: Along, position: int) -> None:
        """Pass a position's masks to the session; an object's first mask must not be empty."""
        useful = given.shown(position) | (given.ids(position) & set(self.session.object_ids))
        if useful:
            masks = given.masks(position)
            self.session.add({id_: masks[id_] for id_ in sorted(useful)})

    def _begin(self, given: Along, first: int, last: int) -> int:
        """Bring the session to a state before the span; return the position to continue from."""
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
        """Reserve capacity for all objects of the video, equal in both directions.

        No frame then waits for the compiler, and one program serves both directions.
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
    """Return the position from which a span's objects are all given, or as early as they can be.

    It is None if there is no mask before the span's end.
    """
    nearest: dict[int, int] = {}
    for position in (p for p in given.positions if p <= last):
        for id_ in given.shown(position):
            if position <= first or id_ not in nearest:
                nearest[id_] = position
    return min(nearest.values(), default=None)


def _entries(given: Along, first: int, last: int) -> dict[int, int]:
    """Return the first position within a span that gives each object."""
    entries: dict[int, int] = {}
    for position in (p for p in given.positions if first <= p <= last):
        for id_ in given.shown(position):
            entries.setdefault(id_, position)
    return entries
