"""Colours of object ids."""

import numpy as np
from jaxtyping import UInt8


def voc_palette(size: int = 256) -> UInt8[np.ndarray, "n 3"]:
    """The colour map of PASCAL VOC and DAVIS, entry 0 black.

    Its rule: bits 0, 1, 2 of an id go to the highest bit of red, green, blue, bits 3, 4, 5 to
    the second highest, and so on (VOC2012 development kit, section "colormap").
    """
    ids = np.arange(size)
    colours = np.zeros((size, 3), np.uint8)
    for level in range(8):
        for channel in range(3):
            bit = (ids >> (3 * level + channel)) & 1
            colours[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    return colours


def colour_of(object_id: int) -> tuple[int, int, int]:
    """A VOC colour for any positive id; ids above 255 use the 255 colours again."""
    red, green, blue = _VOC[(object_id - 1) % 255 + 1]
    return int(red), int(green), int(blue)


_VOC = voc_palette()
