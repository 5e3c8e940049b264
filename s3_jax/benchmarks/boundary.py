"""Exact boundary matching of binary masks, eight rows per byte.

For every boundary pixel of one mask, the boundary measure asks whether the other mask has a
boundary pixel within a disk. On arrays of pixels, this is a dilation with a large kernel for each
object and frame. Here a mask is cut into eight horizontal bands, and bit i of a byte holds a pixel
of band i. A shift by rows or columns is then a slice, the union of two sets is an OR, and each
operation works on eight pixels per byte. Dilation by the disk is the union of dilations by its rows
(runs of pixels), and runs are grown by overlapping shifts. The result is exact.

Packed masks are `UInt8[np.ndarray, "n rows columns"]`. The rows of the bands lie between two
margins that repeat the neighbouring bands, and empty columns on the right keep shifts from reaching
the next row. Whole arrays can therefore be shifted as one line of bytes, which is several times
faster in NumPy than shifts of rows. A margin is one pixel wider than the radius.
"""

import dataclasses
from math import isqrt

import numpy as np
from jaxtyping import UInt8

BITS = 8
WORD = 8  # bytes; rows are padded to whole 64-bit words, to count bits by words

Packed = UInt8[np.ndarray, "n rows columns"]
Line = UInt8[np.ndarray, " bytes"]


@dataclasses.dataclass(frozen=True)
class BoundaryMatches:
    """Numbers of all and of matched boundary pixels in one annotation and r predictions.

    annotation: boundary pixels of the annotation.
    predictions: boundary pixels of each prediction.
    annotation_matched: boundary pixels of the annotation near one of each prediction.
    predictions_matched: boundary pixels of each prediction near one of the annotation.
    """

    annotation: int
    predictions: list[int]
    annotation_matched: list[int]
    predictions_matched: list[int]


def match_boundaries(masks: UInt8[np.ndarray, "n h w"], radius: int) -> BoundaryMatches:
    """Count matching boundary pixels of `masks[0]` (annotation) and `masks[1:]` (predictions).

    A pixel belongs to the boundary if it differs from its right, lower or lower-right neighbour.
    Beyond its last row and column, the mask continues with the same values (Perazzi et al. 2016;
    Martin et al. 2004). Two boundary pixels match if their squared distance is at most radius
    squared.

    Args:
      masks: annotation and predictions, with values 0 and 1.
      radius: largest distance of a match in pixels, at least 1.
    """
    _, height, width = masks.shape
    margin = radius + 1
    packed = _pack(masks, margin)
    boundary = _boundary(packed, margin, height, width)
    near = _dilate(boundary, radius)[:, margin:-margin]
    boundary = boundary[:, margin:-margin]
    annotation, *predictions = _count(boundary)
    return BoundaryMatches(
        annotation=annotation,
        predictions=predictions,
        annotation_matched=_count(boundary[:1] & near[1:]),
        predictions_matched=_count(boundary[1:] & near[:1]),
    )


def _pack(masks: UInt8[np.ndarray, "n h w"], margin: int) -> Packed:
    """Pack masks after repeating their last row and column once."""
    n, height, width = masks.shape
    rows = max(-(-(height + 1) // BITS), margin)
    columns = -(-(width + 1 + margin) // WORD) * WORD
    bits = np.zeros((n, rows, width), np.uint8)
    line = bits.reshape(-1)
    for band in reversed(range(BITS)):
        pixels = masks[:, band * rows : (band + 1) * rows]
        line += line
        bits[:, : pixels.shape[1]] |= pixels
    packed = np.zeros((n, rows + 2 * margin, columns), np.uint8)
    inner = packed[:, margin:-margin]
    inner[:, :, :width] = bits
    (last_band, last_row), (band, row) = divmod(height - 1, rows), divmod(height, rows)
    inner[:, row] |= (inner[:, last_row] >> last_band & 1) << band
    inner[:, :, width] = inner[:, :, width - 1]
    _fill_margins(packed, margin)
    return packed


def _fill_margins(packed: Packed, margin: int) -> None:
    """Repeat the neighbouring bands above and below each band (in place)."""
    lowest = packed[:, -2 * margin : -margin]
    np.add(lowest, lowest, out=packed[:, :margin])  # shifts by one bit in a tenth of the time
    np.right_shift(packed[:, margin : 2 * margin], 1, out=packed[:, -margin:])


def _boundary(packed: Packed, margin: int, height: int, width: int) -> Packed:
    """Return the boundary map without row `height` and column `width`, which only repeat others."""
    _, all_rows, columns = packed.shape
    line = packed.reshape(-1)
    size = line.size - columns - 1
    here = line[:size]
    right, lower, lower_right = (line[s : s + size] for s in (1, columns, columns + 1))
    out = np.zeros(packed.shape, np.uint8)
    differs = here ^ right
    differs |= here ^ lower
    differs |= here ^ lower_right
    out.reshape(-1)[:size] = differs
    out[:, :, width:] = 0
    band, row = divmod(height, all_rows - 2 * margin)
    out[:, margin + row] &= np.uint8(~(1 << band) & 0xFF)
    _fill_margins(out, margin)
    return out


def _dilate(packed: Packed, radius: int) -> Packed:
    """Return the union of disks x^2 + y^2 <= radius^2 around all pixels, valid between the margins.

    Row y of the disk is a run of pixels, the longest one in the middle. Runs are grown step by step
    from the disk's poles, and each is added y rows above and y rows below.
    """
    columns = packed.shape[2]
    runs, half_width = packed.reshape(-1), 0
    start, size = radius * columns, packed.size - 2 * radius * columns
    out = np.zeros(packed.shape, np.uint8)
    inner = out.reshape(-1)[start : start + size]
    for y in range(radius, -1, -1):
        wanted = isqrt(radius * radius - y * y)
        while half_width < wanted:
            step = min(wanted - half_width, 2 * half_width + 1)
            # Shifts by more than the half width leave a gap between the two copies.
            runs = _spread(runs, step, keep_middle=step > half_width)
            half_width += step
        for first in {start - y * columns, start + y * columns}:
            inner |= runs[first : first + size]
    return out


def _spread(runs: Line, step: int, keep_middle: bool) -> Line:
    """Return the union of two copies, shifted by `step` pixels to the left and to the right."""
    out = np.zeros(runs.size, np.uint8)
    np.bitwise_or(runs[: -2 * step], runs[2 * step :], out=out[step:-step])
    if keep_middle:
        out |= runs
    return out


def _count(packed: Packed) -> list[int]:
    """Count the pixels of each mask."""
    bits = np.bitwise_count(packed.view(np.uint64))
    return bits.sum(axis=(1, 2), dtype=np.int64).tolist()
