"""Image windows, which the network sees at fixed sizes."""

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Shaped
from numpy.typing import NDArray

Size = tuple[int, int]  # height, width
# Sizes for encoding whole images, by descending aspect ratio; each one is compiled.
WHOLE_SIZES: tuple[Size, ...] = ((320, 576), (448, 448), (576, 320))
CLOSE_SIZE: Size = (384, 384)
# A close window's sides as multiples of the box's, and the shortest side in pixels.
MARGIN, SMALLEST = 1.4, 48.0
# Largest ratio of a close window's longer side to its shorter side.
STRETCH = 1.3
# Grey level beyond the edges of an image.
BEYOND = 127.0


class Window(NamedTuple):
    """Part of an image, in pixels, that may extend beyond the edges."""

    left: float
    top: float
    width: float
    height: float

    def points_from(self, points: NDArray, size: Size) -> Float32[np.ndarray, "n 2"]:
        """Convert positions (x, y) in the image to positions in a view of this size."""
        scale = np.array([size[1] / self.width, size[0] / self.height])
        return ((points - np.array([self.left, self.top])) * scale).astype(np.float32)

    def view_of(
        self, picture: Shaped[np.ndarray, "h w *c"], size: Size, beyond: float = 0.0
    ) -> Shaped[np.ndarray, "h2 w2 *c"]:
        """Resample the window's content to this size, smoothing it if it shrinks."""
        across, down = size[1] / self.width, size[0] / self.height
        height, width = picture.shape[:2]
        smaller = (max(round(min(across, 1) * width), 1), max(round(min(down, 1) * height), 1))
        if smaller != (width, height):
            picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
        across, down = across * width / smaller[0], down * height / smaller[1]
        shift = (-self.left * size[1] / self.width, -self.top * size[0] / self.height)
        return _warp(picture, (across, down), shift, size, beyond)

    def back(self, view: Float32[np.ndarray, "h2 w2"], size: Size) -> Float32[np.ndarray, "h w"]:
        """Resample a view's values to the image, with 0 outside the window."""
        scale = (self.width / view.shape[1], self.height / view.shape[0])
        return _warp(view, scale, (self.left, self.top), size, 0.0)


def _warp(
    picture: NDArray,
    scale: tuple[float, float],
    shift: tuple[float, float],
    size: Size,
    fill: float,
) -> NDArray:
    """Scale and shift a picture, in coordinates where pixel i spans i to i + 1."""
    matrix = np.array(
        [
            [scale[0], 0, shift[0] + (scale[0] - 1) / 2],
            [0, scale[1], shift[1] + (scale[1] - 1) / 2],
        ]
    )
    return cv2.warpAffine(
        picture, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR, borderValue=[fill] * 4
    )


def whole_window(size: Size) -> tuple[Window, Size]:
    """Return a window around a whole image, and the size at which it is encoded."""
    aspect = math.log(size[1] / size[0])
    seen = min(WHOLE_SIZES, key=lambda one: abs(math.log(one[1] / one[0]) - aspect))
    scale = max(size[0] / seen[0], size[1] / seen[1])
    height, width = seen[0] * scale, seen[1] * scale
    return Window((size[1] - width) / 2, (size[0] - height) / 2, width, height), seen


def close_window(box: tuple[float, float, float, float], size: Size) -> Window:
    """Return a window around a box (left, top, right, bottom), within the image if it fits."""
    wide, high = (max(box[i + 2] - box[i], 1) * MARGIN for i in (0, 1))
    wide, high = max(wide, high / STRETCH, SMALLEST), max(high, wide / STRETCH, SMALLEST)
    left = _within((box[0] + box[2] - wide) / 2, wide, size[1])
    top = _within((box[1] + box[3] - high) / 2, high, size[0])
    return Window(left, top, wide, high)


def _within(start: float, length: float, limit: int) -> float:
    if length >= limit:
        return (limit - length) / 2
    return min(max(start, 0.0), limit - length)


def extent(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int] | None:
    """Return left, top, right, bottom of the True pixels; None if there are none."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
