"""How masks keep object ids in pixels, and a mask with its ids."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int32

Kind = Literal["palette", "grey", "grey16", "bilevel", "rgb", "grey_rgb"]
VOID = 255  # the label that palette masks of several data sets use for "do not score"
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
    """How ids are stored in an image; `palette` holds R, G, B bytes for kind "palette"."""

    kind: Kind
    palette: bytes = b""

    @property
    def largest_id(self) -> int:
        return LARGEST_ID[self.kind]


def encoding_for(largest_id: int, palette: bytes) -> MaskEncoding:
    """The encoding that shows the most of ids up to this: a palette's colours where it can."""
    if largest_id <= LARGEST_ID["palette"]:
        return MaskEncoding("palette", palette)
    return MaskEncoding("grey16" if largest_id <= LARGEST_ID["grey16"] else "rgb")


@dataclasses.dataclass(frozen=True, eq=False)
class Mask:
    """Object ids per pixel, 0 for background, and how the file stored them.

    from_alpha: the object was drawn in the alpha channel, over a picture of one colour.
    soft_alpha: pixels that are neither opaque nor transparent.
    """

    path: Path
    ids: Int32[np.ndarray, "h w"]
    encoding: MaskEncoding
    from_alpha: bool = False
    soft_alpha: int = 0

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The ids present, in ascending order, without background."""
        return tuple(int(i) for i in np.unique(self.ids) if i)
