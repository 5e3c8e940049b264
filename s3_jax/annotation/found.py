"""Results of frames, and a store that keeps them compressed in memory."""

import dataclasses
import zlib
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Literal

import numpy as np
from jaxtyping import Integer

Origin = Literal["given", "forward", "backward", "both"]
Ids = Integer[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True, eq=False)
class Found:
    """Result of one frame.

    index: index of the frame.
    ids: object id of every pixel, 0 for background.
    confidence: for each object, its mean probability over the pixels of its mask; 0 if the mask is
      empty, 1 if it was given.
    origin: "given" if all masks were given, otherwise the direction of propagation.
    """

    index: int
    ids: Ids
    confidence: dict[int, float]
    origin: Origin

    def without(self, object_id: int) -> "Found":
        """Return the same frame without an object."""
        return dataclasses.replace(
            self,
            ids=np.where(self.ids == object_id, 0, self.ids),
            confidence={i: c for i, c in self.confidence.items() if i != object_id},
        )


@dataclasses.dataclass(frozen=True)
class _Packed:
    """A frame's result with its ids compressed."""

    data: bytes
    shape: tuple[int, int]
    dtype: str
    confidence: dict[int, float]
    origin: Origin


class FoundInMemory(MutableMapping[int, Found]):
    """Compressed results by frame; a 480p frame with a few objects takes about 5 kB.

    settled: frames whose results are up to date; all others are due.
    """

    def __init__(self) -> None:
        self.settled: set[int] = set()
        self._packed: dict[int, _Packed] = {}

    def settle(self, index: int) -> None:
        """Mark a frame's result as up to date."""
        self.settled.add(index)

    def touch(self, indices: Iterable[int]) -> None:
        """Mark results of frames as outdated."""
        self.settled.difference_update(indices)

    def __getitem__(self, index: int) -> Found:
        packed = self._packed[index]
        ids = np.frombuffer(zlib.decompress(packed.data), packed.dtype).reshape(packed.shape)
        return Found(index, ids, dict(packed.confidence), packed.origin)

    def __setitem__(self, index: int, found: Found) -> None:
        ids = smallest(found.ids)
        height, width = ids.shape
        self._packed[index] = _Packed(
            zlib.compress(ids.tobytes(), 1),
            (height, width),
            ids.dtype.name,
            dict(found.confidence),
            found.origin,
        )

    def __delitem__(self, index: int) -> None:
        del self._packed[index]
        self.settled.discard(index)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._packed))

    def __len__(self) -> int:
        return len(self._packed)


def smallest(ids: Ids) -> Ids:
    """Convert ids to the smallest unsigned dtype (8, 16 or 32 bits) that holds them."""
    return ids.astype(np.min_scalar_type(int(ids.max(initial=0))))
