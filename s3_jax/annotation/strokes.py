"""Drawing tools that edit a frame's ids at full size; coordinates are x, y in pixels."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Int32, UInt8

Ids = Int32[np.ndarray, "h w"]
Points = Sequence[Sequence[float]]
_FINE = 4  # fractional bits of coordinates when drawing


def brush(ids: Ids, points: Points, size: float, paint: int, only: int | None = None) -> Ids:
    """Draw a line with a round tip of `size` pixels.

    Args:
      paint: id of the painted pixels, 0 for background.
      only: change only pixels of this id, so that an eraser leaves other objects intact.
    """
    area = np.zeros(ids.shape, np.uint8)
    line = _fixed(points)
    width = max(1, round(size))
    cv2.polylines(area, [line], False, 1, width, cv2.LINE_8, _FINE)
    radius = max(0, round((size - 1) / 2 * 2**_FINE))
    for x, y in line:
        cv2.circle(area, (int(x), int(y)), radius, 1, -1, cv2.LINE_8, _FINE)
    return _painted(ids, area, paint, only)


def polygon(ids: Ids, points: Points, paint: int, only: int | None = None) -> Ids:
    """Fill a polygon, including all areas enclosed by edges that cross.

    Args:
      ids: object id of every pixel.
      points: corners x, y in pixels.
      paint: id of the filled pixels, 0 for background.
      only: change only pixels of this id.
    """
    area = np.zeros(ids.shape, np.uint8)
    cv2.fillPoly(area, [_fixed(points)], 1, cv2.LINE_8, _FINE)
    outlines, _ = cv2.findContours(area, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(area, outlines, -1, 1, -1)
    return _painted(ids, area, paint, only)


def fill_holes(ids: Ids, object_id: int) -> Ids:
    """Add to an object the background that it encloses."""
    inside = (ids == object_id).astype(np.uint8)
    outlines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(inside, outlines, -1, 1, -1)
    return np.where((inside == 1) & (ids == 0), object_id, ids).astype(np.int32)


def pieces_at(mask: Bool[np.ndarray, "h w"], points: Points) -> Bool[np.ndarray, "h w"]:
    """Keep the connected components of a mask that contain a point, or all if none does.

    A click on one of several similar objects therefore selects only that one.
    """
    _, pieces = cv2.connectedComponents(mask.astype(np.uint8))
    height, width = mask.shape
    columns, rows = np.asarray(points, np.float64).reshape(-1, 2).astype(int).T
    hit = pieces[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    return np.isin(pieces, hit[hit > 0]) if (hit > 0).any() else mask


def put(ids: Ids, mask: Bool[np.ndarray, "h w"], object_id: int) -> Ids:
    """Replace an object's mask; pixels of other objects may change to this one."""
    without = np.where(ids == object_id, 0, ids)
    return np.where(mask, object_id, without).astype(np.int32)


def _painted(ids: Ids, area: UInt8[np.ndarray, "h w"], paint: int, only: int | None) -> Ids:
    chosen = area == 1
    if only is not None:
        chosen &= ids == only
    return np.where(chosen, paint, ids).astype(np.int32)


def _fixed(points: Points) -> Int32[np.ndarray, "n 2"]:
    """Convert points to integers in 1/16 pixel; pixel centres are half a pixel from the corners."""
    return np.round((np.asarray(points, np.float64) - 0.5) * 2**_FINE).astype(np.int32)
