"""Shapes in the text of a compiled program, and the memory they take with layout padding.

A TPU stores an array in tiles of (usually) 8 x 128 numbers, so an array whose last axis has 64
channels takes twice its size. A layout that ends in S(1) is in on-chip memory, not in HBM.
"""

import dataclasses
import functools
import math
import re

_BITS = {"pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z][a-z0-9]*)\[([^\]]*)\](?:\{([^{}]*)\})?")
_TILE = re.compile(r"T\(([\d,]+)\)")
_SPACE = re.compile(r"S\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class ArrayShape:
    """One array of a program.

    minor_to_major: axes, the one with adjacent entries first.
    space: memory space; 0 is main memory.
    dynamic: True if some dimension is only an upper bound.
    """

    dtype: str
    dims: tuple[int, ...]
    minor_to_major: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    space: int = 0
    dynamic: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def logical_bytes(self) -> float:
        """Size in bytes without padding."""
        return self.size * bits_of(self.dtype) / 8

    @property
    def stored_bytes(self) -> float:
        """Size in bytes with the padding of its tiles."""
        order = self.minor_to_major or tuple(reversed(range(len(self.dims))))
        dims = [self.dims[axis] for axis in order]
        for position, tile in enumerate(reversed(self.tile)):
            if position < len(dims):
                dims[position] = -(-dims[position] // tile) * tile
        return math.prod(dims) * bits_of(self.dtype) / 8

    @property
    def in_main_memory(self) -> bool:
        """False if it is in on-chip memory."""
        return self.space == 0

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


def bits_of(dtype: str) -> int:
    """Return the bits per number of a dtype by its name: 16 for bf16."""
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.search(r"\d+", dtype)
    return int(digits.group()) if digits else 0


@functools.lru_cache(maxsize=200_000)
def parse_shapes(text: str) -> tuple[ArrayShape, ...]:
    """Parse all arrays of a shape, possibly a tuple: "(f32[2]{0}, bf16[8,3]{1,0:T(8,128)S(1)})"."""
    return tuple(_array(*match.groups()) for match in _ARRAY.finditer(text))


def _array(dtype: str, dims: str, layout: str | None) -> ArrayShape:
    order, _, storage = (layout or "").partition(":")
    tile, space = _TILE.search(storage), _SPACE.search(storage)
    return ArrayShape(
        dtype=dtype,
        dims=tuple(int(n.lstrip("<=")) for n in dims.split(",") if n),
        minor_to_major=_integers(order),
        tile=_integers(tile.group(1)) if tile else (),
        space=int(space.group(1)) if space else 0,
        dynamic="<=" in dims,
    )


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",") if n)
