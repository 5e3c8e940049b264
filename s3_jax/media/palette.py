"""Colours of object ids."""

import numpy as np
from jaxtyping import UInt8


def voc_palette(size: int = 256) -> UInt8[np.ndarray, "n 3"]:
    """Return the colour map of PASCAL VOC and DAVIS; entry 0 is black.

    Bits 0, 1 and 2 of an id become the highest bits of red, green and blue, bits 3, 4 and 5 the
    second highest, and so on (VOC2012 development kit, section "colormap").
    """
    ids = np.arange(size)
    colours = np.zeros((size, 3), np.uint8)
    for level in range(8):
        for channel in range(3):
            bit = (ids >> (3 * level + channel)) & 1
            colours[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    return colours


def colour_of(object_id: int) -> tuple[int, int, int]:
    """Return the VOC colour of a positive id; ids above 255 cycle through the same 255 colours."""
    red, green, blue = _VOC[(object_id - 1) % 255 + 1]
    return int(red), int(green), int(blue)


_VOC = voc_palette()
