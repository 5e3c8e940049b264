"""Contact sheets: many pictures in a grid, with a caption below each."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import UInt8

Picture = UInt8[np.ndarray, "h w 3"]
PAPER, INK = (255, 255, 255), (40, 40, 40)
GAP, CAPTION_HEIGHT = 8, 22
FONT, SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.45


class Tile(NamedTuple):
    """A picture and its caption."""

    picture: Picture
    caption: str = ""


def contact_sheet(tiles: Sequence[Tile], columns: int, width: int = 320) -> Picture:
    """Lay out pictures row by row, scaled to `width` pixels; the tallest sets a row's height.

    Args:
      tiles: pictures and captions, in reading order.
      columns: number of pictures per row.
      width: width of a column in pixels.

    Raises:
      ValueError: there are no tiles.
    """
    if not tiles:
        raise ValueError("a sheet needs at least one tile")
    tiles = [Tile(fit_width(tile.picture, width), tile.caption) for tile in tiles]
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    heights = [max(tile.picture.shape[0] for tile in row) + CAPTION_HEIGHT for row in rows]
    shown = min(columns, len(tiles))
    sheet = np.full((GAP + sum(heights) + GAP * len(rows), GAP + shown * (width + GAP), 3), PAPER,
                    np.uint8)  # fmt: skip
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            _place(sheet, tile, top, GAP + column * (width + GAP))
        top += height + GAP
    return sheet


def fit_width(picture: Picture, width: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Scale a picture to a width in pixels, keeping its aspect ratio."""
    height = max(1, round(picture.shape[0] * width / picture.shape[1]))
    smooth = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(picture, (width, height), interpolation=smooth).astype(np.uint8)


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """Return up to `wanted` evenly spaced indices below `count`, including the first and last."""
    if count <= wanted:
        return list(range(count))
    if wanted == 1:
        return [0]
    return [math.floor(i * (count - 1) / (wanted - 1) + 0.5) for i in range(wanted)]


def _place(sheet: Picture, tile: Tile, top: int, left: int) -> None:
    height, width = tile.picture.shape[:2]
    sheet[top : top + height, left : left + width] = tile.picture
    caption = _shortened(tile.caption, width)
    bottom = (left, top + height + CAPTION_HEIGHT - 7)
    cv2.putText(sheet, caption, bottom, FONT, SCALE, INK, 1, cv2.LINE_AA)


def _shortened(text: str, width: int) -> str:
    """Shorten a caption to the width of its column."""
    while text and cv2.getTextSize(text, FONT, SCALE, 1)[0][0] > width:
        text = text[:-1]
    return text
