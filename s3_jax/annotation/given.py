"""Given masks by frame and object, compressed, and the prompts they were made from."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

Mask = Bool[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True)
class _Packed:
    """Masks of one frame, a bit for a pixel and compressed. shown: objects with any pixel."""

    shape: tuple[int, int]
    masks: dict[int, bytes]
    shown: frozenset[int]
    prompts: Any


class Given:
    """Masks that were given for frames of one video.

    A mask of 480p takes about 1 kB. An empty mask says that its object is not in the frame.
    """

    def __init__(self) -> None:
        self._packed: dict[int, _Packed] = {}

    @property
    def frames(self) -> list[int]:
        """Frames with masks, in ascending order."""
        return sorted(self._packed)

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Objects with a mask in any frame, in ascending order."""
        return tuple(sorted({id_ for packed in self._packed.values() for id_ in packed.masks}))

    def ids(self, index: int) -> frozenset[int]:
        """Objects that a frame has masks of."""
        packed = self._packed.get(index)
        return frozenset(packed.masks) if packed else frozenset()

    def shown(self, index: int) -> frozenset[int]:
        """Objects that a frame has masks of which are not empty."""
        packed = self._packed.get(index)
        return packed.shown if packed else frozenset()

    def masks(self, index: int) -> dict[int, Mask]:
        """Masks of a frame by object."""
        packed = self._packed.get(index)
        return {i: _unpack(m, packed.shape) for i, m in packed.masks.items()} if packed else {}

    def prompts(self, index: int) -> Any:
        """What the masks of a frame were made from, as it was put; None if that was not said."""
        packed = self._packed.get(index)
        return packed.prompts if packed else None

    def put(self, index: int, masks: Mapping[int, Mask], prompts: Any = None) -> None:
        """Put masks in place of all of a frame; without any, the frame has none any more."""
        if not masks:
            self._packed.pop(index, None)
            return
        height, width = next(iter(masks.values())).shape
        self._packed[index] = _Packed(
            (height, width),
            {int(i): zlib.compress(np.packbits(mask).tobytes(), 1) for i, mask in masks.items()},
            frozenset(int(i) for i, mask in masks.items() if mask.any()),
            prompts,
        )


@dataclasses.dataclass(frozen=True)
class Along:
    """Given masks by position in a direction: a frame's index forwards, its negative backwards."""

    given: Given
    direction: int

    @property
    def positions(self) -> list[int]:
        """Positions with masks, in ascending order."""
        return sorted(self.direction * index for index in self.given.frames)

    def ids(self, position: int) -> frozenset[int]:
        """Objects that a position has masks of."""
        return self.given.ids(self.direction * position)

    def shown(self, position: int) -> frozenset[int]:
        """Objects that a position has masks of which are not empty."""
        return self.given.shown(self.direction * position)

    def masks(self, position: int) -> dict[int, Mask]:
        """Masks of a position by object."""
        return self.given.masks(self.direction * position)


def _unpack(data: bytes, shape: tuple[int, int]) -> Mask:
    bits = np.unpackbits(np.frombuffer(zlib.decompress(data), np.uint8), count=shape[0] * shape[1])
    return bits.astype(bool).reshape(shape)
