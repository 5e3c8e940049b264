"""Timetables: the objects scored on each frame of a sequence."""

from collections.abc import Iterable, Sequence

from s3_jax.benchmarks.protocols import ObjectMeta, Protocol, SequenceMeta
from s3_jax.errors import InputError
from s3_jax.media.image_files import natural_key, shortened

PALETTE_IDS = 255


class Timetable:
    """Scored objects per frame, from the meta file or from the annotations seen so far.

    frames: names of the annotated frames, in order.
    meta: objects of this sequence. If it is None or lists no frames, only annotations are used.

    Raises:
      InputError: the meta file lists frames that are not annotated, or has none for some objects.
    """

    def __init__(self, protocol: Protocol, frames: Sequence[str], meta: SequenceMeta | None):
        self.frames = list(frames)
        self._protocol = protocol
        self._first: dict[int, int] = {}
        self._listed: dict[int, frozenset[str]] = {}
        for object_id, entry in (meta or {}).items():
            names = _listed_frames(entry, self.frames)
            if names is not None:
                last = len(names) - 1 if protocol.skip_last else len(names)
                self._listed[object_id] = frozenset(names[1:last])
        if self._listed and len(self._listed) < len(meta or {}):
            raise InputError("meta.json has frames for some of the objects only: add the others")
        if protocol.binary:
            self._first[1] = 0

    def needed(self) -> list[str]:
        """Return the frames on which an object may be scored, for which results need masks."""
        if self._listed:
            listed = frozenset().union(*self._listed.values())
            return [frame for frame in self.frames if frame in listed]
        return self.frames[1 : len(self.frames) - self._protocol.skip_last]

    def scored(self, index: int) -> list[int]:
        """Return the objects scored on the frame `index`, in ascending order."""
        if self._listed:
            frame = self.frames[index]
            return sorted(i for i, names in self._listed.items() if frame in names)
        if self._protocol.skip_last and index == len(self.frames) - 1:
            return []
        return sorted(i for i, first in self._first.items() if first < index)

    def observe(self, index: int, ids: Iterable[int]) -> None:
        """Record the objects annotated on the frame `index`."""
        if self._listed or (self._protocol.objects == "first_frame" and index > 0):
            return
        if self._protocol.objects == "first_frame" and not self._protocol.binary:
            # The public evaluation also scores unused ids below the first frame's largest one. It
            # uses palette masks; larger ids are colours, which leave almost all numbers unused.
            last = max(ids, default=0)
            ids = range(1, last + 1) if last <= PALETTE_IDS else ids
        for object_id in ids:
            self._first.setdefault(object_id, index)


def _listed_frames(entry: ObjectMeta, frames: Sequence[str]) -> list[str] | None:
    if entry.frames is not None:
        absent = sorted(set(entry.frames) - set(frames))
        if absent:
            raise InputError(
                f"meta.json lists {len(entry.frames)} frames of an object, but "
                f"{shortened(absent)} are not annotated: the annotations hold only the masks given "
                "to the method, or belong to another split; scoring needs every annotation, and "
                "for test sets only the benchmark's server has them"
            )
        return sorted(entry.frames, key=natural_key)
    if entry.span is not None:
        start, end = (natural_key(name) for name in entry.span)
        return [frame for frame in frames if start <= natural_key(frame) <= end]
    return None
