"""Snapshots of a session at many frames, within a memory bound."""

from itertools import pairwise

from s3_jax.propagation.session import SessionSnapshot


class Snapshots:
    """What a session remembered after some positions of a video.

    every: positions between two of them. most_bytes: where they would take more, those go whose
    neighbours lie closest together, so that the rest stays spread evenly; one always stays.
    """

    def __init__(self, every: int, most_bytes: int) -> None:
        self.every, self.most_bytes = every, most_bytes
        self._kept: dict[int, SessionSnapshot] = {}

    @property
    def positions(self) -> list[int]:
        """Where there are snapshots, in ascending order."""
        return sorted(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes that all of them take."""
        return sum(snapshot.nbytes for snapshot in self._kept.values())

    def keep(self, position: int, snapshot: SessionSnapshot) -> None:
        """Add the snapshot after a position, and make room for it."""
        self._kept[position] = snapshot
        while self.nbytes > self.most_bytes and len(self._kept) > 1:
            del self._kept[self._least_needed()]

    def before(self, position: int) -> tuple[int, SessionSnapshot] | None:
        """The last one before a position."""
        earlier = [p for p in self._kept if p < position]
        return (max(earlier), self._kept[max(earlier)]) if earlier else None

    def drop(self, start: int, end: int | None) -> None:
        """Forget those from a position on, up to before `end` if that is given."""
        for position in self.positions:
            if position >= start and (end is None or position < end):
                del self._kept[position]

    def _least_needed(self) -> int:
        """The one without which the largest gap grows least; not the newest position's end."""
        positions = self.positions
        if len(positions) < 3:
            return positions[0]
        gaps = {
            middle: after - before
            for (before, middle), (_, after) in zip(
                pairwise(positions), pairwise(positions[1:]), strict=False
            )
        }
        return min(gaps, key=lambda p: (gaps[p], p))
