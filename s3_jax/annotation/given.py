"""Given masks by frame and object, compressed, and the prompts behind them."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool

Mask = Bool[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True)
class _Packed:
    """Masks of one frame, as compressed bitmaps; `shown` lists the ids of the non-empty ones."""

    shape: tuple[int, int]
    masks: dict[int, bytes]
    shown: frozenset[int]
    prompts: Any


class Given:
    """Given masks of one video; a 480p mask takes about 1 kB.

    An empty mask means that its object is not in the frame.
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
        """Return the objects with a mask in a frame."""
        packed = self._packed.get(index)
        return frozenset(packed.masks) if packed else frozenset()

    def shown(self, index: int) -> frozenset[int]:
        """Return the objects with a non-empty mask in a frame."""
        packed = self._packed.get(index)
        return packed.shown if packed else frozenset()

    def masks(self, index: int) -> dict[int, Mask]:
        """Return the masks of a frame by object id."""
        packed = self._packed.get(index)
        return {i: _unpack(m, packed.shape) for i, m in packed.masks.items()} if packed else {}

    def prompts(self, index: int) -> Any:
        """Return the prompts behind the masks of a frame, or None if there are none."""
        packed = self._packed.get(index)
        return packed.prompts if packed else None

    def put(self, index: int, masks: Mapping[int, Mask], prompts: Any = None) -> None:
        """Replace all masks of a frame, or remove the frame if `masks` is empty."""
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
    """Given masks by position along a direction (see `annotation.chain`)."""

    given: Given
    direction: int

    @property
    def positions(self) -> list[int]:
        """Positions with masks, in ascending order."""
        return sorted(self.direction * index for index in self.given.frames)

    def ids(self, position: int) -> frozenset[int]:
        """Return the objects with a mask at a position."""
        return self.given.ids(self.direction * position)

    def shown(self, position: int) -> frozenset[int]:
        """Return the objects with a non-empty mask at a position."""
        return self.given.shown(self.direction * position)

    def masks(self, position: int) -> dict[int, Mask]:
        """Return the masks at a position by object id."""
        return self.given.masks(self.direction * position)


def _unpack(data: bytes, shape: tuple[int, int]) -> Mask:
    bits = np.unpackbits(np.frombuffer(zlib.decompress(data), np.uint8), count=shape[0] * shape[1])
    return bits.astype(bool).reshape(shape)
