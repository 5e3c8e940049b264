"""The choices of object queries drawn on a frame."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

Picture = UInt8[np.ndarray, "h w 3"]
Colour = tuple[int, int, int]
FOREGROUND: Colour = (255, 140, 0)
BACKGROUND: Colour = (0, 190, 255)
SHADE = 0.55  # of the frame outside of what foreground queries may read


class QueryChoices(NamedTuple):
    """For l blocks and k object slots.

    row, column: in pixels of the frame, the centre of the chosen token.
    inside: tokens that foreground queries may read (all of them where there are none).
    """

    row: Float[np.ndarray, "l k heads q"]
    column: Float[np.ndarray, "l k heads q"]
    inside: Bool[np.ndarray, "l k th tw"]


def draw_choices(image: Picture, choices: QueryChoices, block: int, slot: int) -> Picture:
    """What the queries of an object pick in a block.

    Orange dots are picks of foreground queries, blue ones of background queries; a dot's area is
    the number of queries and heads that pick the same pixel. The part that foreground queries
    may read is bright.
    """
    picture = _shaded(image, choices.inside[block, slot])
    positions = np.stack([choices.column[block, slot], choices.row[block, slot]], axis=-1)
    half = positions.shape[1] // 2
    _draw_dots(picture, positions[:, half:].reshape(-1, 2), BACKGROUND)
    _draw_dots(picture, positions[:, :half].reshape(-1, 2), FOREGROUND)
    return picture


def _shaded(image: Picture, inside: Bool[np.ndarray, "th tw"]) -> Picture:
    height, width = image.shape[:2]
    bright = cv2.resize(inside.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    return (image * (SHADE + (1 - SHADE) * bright[..., None])).astype(np.uint8)


def _draw_dots(picture: Picture, positions: Float[np.ndarray, "n 2"], colour: Colour) -> None:
    unit = max(2.0, min(picture.shape[:2]) / 120)
    places, counts = np.unique(positions.round().astype(int), axis=0, return_counts=True)
    for (x, y), count in zip(places.tolist(), counts.tolist(), strict=True):
        radius = round(unit * float(np.sqrt(count)))
        cv2.circle(picture, (x, y), radius + 1, (0, 0, 0), -1, cv2.LINE_AA)
        cv2.circle(picture, (x, y), radius, colour, -1, cv2.LINE_AA)
