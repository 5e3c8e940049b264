"""Snapshots of a session at many frames, within a memory limit."""

from itertools import pairwise

from s3_jax.propagation.session import SessionSnapshot


class Snapshots:
    """States of a session after some positions of a video.

    every: number of positions between snapshots.
    most_bytes: memory limit. Beyond it, the snapshots whose neighbours are closest together are
      dropped, so that the others stay evenly spaced. At least one is kept.
    """

    def __init__(self, every: int, most_bytes: int) -> None:
        self.every, self.most_bytes = every, most_bytes
        self._kept: dict[int, SessionSnapshot] = {}

    @property
    def positions(self) -> list[int]:
        """Positions with snapshots, in ascending order."""
        return sorted(self._kept)

    @property
    def nbytes(self) -> int:
        """Size of all snapshots in bytes."""
        return sum(snapshot.nbytes for snapshot in self._kept.values())

    def keep(self, position: int, snapshot: SessionSnapshot) -> None:
        """Add the snapshot after a position, and drop others if necessary."""
        self._kept[position] = snapshot
        while self.nbytes > self.most_bytes and len(self._kept) > 1:
            del self._kept[self._least_needed()]

    def before(self, position: int) -> tuple[int, SessionSnapshot] | None:
        """Return the last snapshot before a position, together with its own position, or None."""
        earlier = [p for p in self._kept if p < position]
        return (max(earlier), self._kept[max(earlier)]) if earlier else None

    def drop(self, start: int, end: int | None) -> None:
        """Drop the snapshots at or after `start` and, if given, before `end`."""
        for position in self.positions:
            if position >= start and (end is None or position < end):
                del self._kept[position]

    def _least_needed(self) -> int:
        """Return the position whose removal leaves the smallest gap; never the newest."""
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
