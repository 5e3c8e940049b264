"""Masks of object ids, and the encodings that store ids in pixels."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int32

Kind = Literal["palette", "grey", "grey16", "bilevel", "rgb", "grey_rgb"]
VOID = 255  # marks pixels that are not scored, in the palette masks of several data sets
LARGEST_ID: dict[Kind, int] = {
    "palette": 255,
    "grey": 255,
    "grey16": 65535,
    "bilevel": 1,
    "rgb": 2**24 - 1,
    "grey_rgb": 255,
}


@dataclasses.dataclass(frozen=True)
class MaskEncoding:
    """Encoding of ids in an image; for kind "palette", `palette` has its R, G, B bytes."""

    kind: Kind
    palette: bytes = b""

    @property
    def largest_id(self) -> int:
        """The largest id that this encoding can store."""
        return LARGEST_ID[self.kind]


def encoding_for(largest_id: int, palette: bytes) -> MaskEncoding:
    """Return the most readable encoding for ids up to `largest_id`, a palette if possible."""
    if largest_id <= LARGEST_ID["palette"]:
        return MaskEncoding("palette", palette)
    return MaskEncoding("grey16" if largest_id <= LARGEST_ID["grey16"] else "rgb")


@dataclasses.dataclass(frozen=True, eq=False)
class Mask:
    """The object id of every pixel (0 for background), and the encoding of the mask's file.

    from_alpha: True if the object was drawn in the alpha channel, over pixels of a single colour.
    soft_alpha: number of pixels that are neither opaque nor fully transparent.
    """

    path: Path
    ids: Int32[np.ndarray, "h w"]
    encoding: MaskEncoding
    from_alpha: bool = False
    soft_alpha: int = 0

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The ids in the mask in ascending order, without background."""
        return tuple(int(i) for i in np.unique(self.ids) if i)
