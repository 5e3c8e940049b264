"""Pictures of the positions in a frame that object queries attend to."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

Picture = UInt8[np.ndarray, "h w 3"]
Colour = tuple[int, int, int]
FOREGROUND: Colour = (255, 140, 0)
BACKGROUND: Colour = (0, 190, 255)
SHADE = 0.55  # brightness of the frame where foreground queries cannot attend


class QueryChoices(NamedTuple):
    """Attended positions of the object queries, for l blocks and k object slots.

    row, column: centre of the chosen token in pixels of the frame, for each head and query.
    inside: True for tokens that foreground queries may attend to (for all tokens if there would
      otherwise be none).
    """

    row: Float[np.ndarray, "l k heads q"]
    column: Float[np.ndarray, "l k heads q"]
    inside: Bool[np.ndarray, "l k th tw"]


def draw_choices(image: Picture, choices: QueryChoices, block: int, slot: int) -> Picture:
    """Draw the tokens that the queries of an object attend to in a block.

    Orange dots are choices of foreground queries, blue dots those of background queries. A dot's
    area is proportional to the number of queries and heads that choose the same token. The region
    that foreground queries may attend to is bright.

    Args:
      image: RGB frame.
      choices: attended positions of all blocks and slots.
      block, slot: the block and the object's slot to draw.
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
