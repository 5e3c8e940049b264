"""Bookkeeping of objects and their slots, on the host in plain numbers."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from s3_jax.propagation.state import slot_size


@dataclasses.dataclass(frozen=True)
class Capacity:
    """Number of slots in the arrays: objects, buckets, and permanent frames per bucket."""

    objects: int = 1
    buckets: int = 1
    permanent: int = 1


@dataclasses.dataclass
class _Object:
    slot: int
    bucket: int


class Slots:
    """Object ids in the order they were added, with their slots and buckets.

    Slots of deleted objects are reused. Capacities only grow, in the steps of `slot_size`.
    """

    def __init__(self) -> None:
        self.capacity = Capacity()
        self._objects: dict[int, _Object] = {}
        self._permanent: dict[int, int] = {}  # permanent frames by bucket

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the known objects, in the order they were added."""
        return tuple(self._objects)

    @property
    def buckets(self) -> int:
        """Number of buckets that hold an object."""
        return len({item.bucket for item in self._objects.values()})

    def slot(self, id_: int) -> int:
        """Return the slot of an object."""
        return self._objects[id_].slot

    def mask(self, ids: Sequence[int]) -> Bool[np.ndarray, " k"]:
        """Return an array that is True in the slots of the given objects."""
        mask = np.zeros(self.capacity.objects, bool)
        mask[[self._objects[id_].slot for id_ in ids]] = True
        return mask

    def order(self) -> Int32[np.ndarray, " k"]:
        """Return the slots of the objects in the order they were added, then the empty slots."""
        used = [item.slot for item in self._objects.values()]
        empty = sorted(set(range(self.capacity.objects)) - set(used))
        return np.array(used + empty, np.int32)

    def add(self, ids: Sequence[int]) -> int:
        """Give new ids free slots and one common free bucket; return the bucket's number."""
        objects = _free({item.slot for item in self._objects.values()}, len(ids))
        bucket = _free({item.bucket for item in self._objects.values()}, 1)[0]
        for id_, slot in zip(ids, objects, strict=True):
            self._objects[id_] = _Object(slot, bucket)
        self._permanent[bucket] = 0
        self.capacity = Capacity(
            objects=max(self.capacity.objects, slot_size(max(objects) + 1)),
            buckets=max(self.capacity.buckets, slot_size(bucket + 1)),
            permanent=self.capacity.permanent,
        )
        return bucket

    def reserve(self, objects: int, buckets: int) -> bool:
        """Make room for a number of objects and buckets.

        Returns:
          True if the capacity has grown.
        """
        before = self.capacity
        self.capacity = dataclasses.replace(
            before,
            objects=max(before.objects, slot_size(objects)),
            buckets=max(before.buckets, slot_size(buckets)),
        )
        return self.capacity != before

    def delete(self, ids: Sequence[int]) -> None:
        """Free the slots of objects, and buckets without a remaining object."""
        for id_ in ids:
            del self._objects[id_]
        used = {item.bucket for item in self._objects.values()}
        self._permanent = {b: n for b, n in self._permanent.items() if b in used}

    def note_frame(self, permanent: bool) -> bool:
        """Update the permanent frame counts of all buckets for one more memory frame.

        A bucket's first frame is always permanent, later ones only if `permanent` is set.

        Returns:
          True if more slots for permanent frames are needed; the capacity has been raised.
        """
        for bucket, frames in self._permanent.items():
            self._permanent[bucket] = max(frames, 1) if not permanent else frames + 1
        needed = slot_size(max(self._permanent.values(), default=1))
        if needed <= self.capacity.permanent:
            return False
        self.capacity = dataclasses.replace(self.capacity, permanent=needed)
        return True

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers for JSON."""
        return {
            "capacity": dataclasses.asdict(self.capacity),
            "objects": [[id_, item.slot, item.bucket] for id_, item in self._objects.items()],
            "permanent": sorted(self._permanent.items()),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Slots":
        """Return the slots that `to_dict` described."""
        slots = cls()
        slots.capacity = Capacity(**values["capacity"])
        slots._objects = {id_: _Object(slot, bucket) for id_, slot, bucket in values["objects"]}
        slots._permanent = dict(values["permanent"])
        return slots


def _free(used: set[int], count: int) -> list[int]:
    """Return the lowest `count` numbers that are not in use."""
    free: list[int] = []
    number = 0
    while len(free) < count:
        if number not in used:
            free.append(number)
        number += 1
    return free
