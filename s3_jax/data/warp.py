"""Geometric transformation of an image and its mask, applied by resampling once."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from s3_jax.data.config import Number
from s3_jax.data.decoding import REDUCTIONS
from s3_jax.data.thin_plate import Bend

Matrix = Float[np.ndarray, "3 3"]
Colour = tuple[int, int, int]
GRID = 16  # pixels between the points at which a bend is computed
# From this many source pixels per result pixel on, average before sampling bilinearly.
FINE = 1.5


@dataclasses.dataclass(frozen=True, eq=False)
class Warp:
    """Map from each pixel of the result to the point of the source that it shows.

    source = to_source * (p + bend(p)) with p = to_crop * pixel, in homogeneous coordinates x, y, 1
    of pixels whose centres are at integers. The bend is measured in multiples of `side` pixels.
    """

    to_source: Matrix
    to_crop: Matrix
    side: int
    bend: Bend | None = None

    @property
    def matrix(self) -> Matrix:
        """The whole transformation without the bend."""
        return self.to_source @ self.to_crop

    @property
    def step(self) -> float:
        """Average number of source pixels between neighbouring pixels of the result."""
        return float(np.sqrt(abs(np.linalg.det(self.matrix[:2, :2]))))

    def for_size(self, size: tuple[int, int], original: tuple[int, int]) -> "Warp":
        """Return the same warp for a source at another resolution; sizes are (height, width)."""
        scale = scaling(size[1] / original[1], size[0] / original[0])
        return dataclasses.replace(self, to_source=scale @ self.to_source)


def reduction(step: Number) -> int:
    """Return the largest decoding reduction that loses nothing visible after the warp."""
    return max(k for k in REDUCTIONS if k <= max(step, 1))


def warp_image(
    image: UInt8[np.ndarray, "h w 3"], warp: Warp, fill: Colour | None
) -> UInt8[np.ndarray, "side side 3"]:
    """Resample an image bilinearly; it is averaged first if it shrinks a lot.

    Args:
      fill: the colour beyond the edges; None reflects the image there.
    """
    if warp.step > FINE:
        height, width = (max(1, round(length / warp.step)) for length in image.shape[:2])
        smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        warp = warp.for_size(smaller.shape[:2], image.shape[:2])
        image = smaller
    return _resample(image, warp, cv2.INTER_LINEAR, fill)


def warp_labels(labels: UInt8[np.ndarray, "h w"], warp: Warp) -> UInt8[np.ndarray, "side side"]:
    """Resample labels by nearest neighbour, with background beyond the edges."""
    return _resample(labels, warp, cv2.INTER_NEAREST, (0, 0, 0))


def scaling(x: Number, y: Number) -> Matrix:
    """Return the matrix that scales a picture about the outer corner of its first pixel."""
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1.0]])


def shift(x: Number, y: Number) -> Matrix:
    """Return the matrix that translates by (x, y)."""
    return np.array([[1.0, 0, x], [0, 1.0, y], [0, 0, 1.0]])


def around(centre: tuple[Number, Number], linear: Float[np.ndarray, "2 2"]) -> Matrix:
    """Return the matrix of a linear map about the point x, y."""
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    return shift(*centre) @ matrix @ shift(-centre[0], -centre[1])


def rotation_shear(degrees: Number, shear: Number, scale: Number = 1.0) -> Float[np.ndarray, "2 2"]:
    """Return the matrix of a horizontal shear, then rotation, then scaling; angles in degrees."""
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    return scale * turn @ np.array([[1.0, np.tan(np.deg2rad(shear))], [0.0, 1.0]])


def mirror(width: int) -> Matrix:
    """Return the matrix that flips a picture left to right."""
    return np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]])


def _resample(
    source: np.ndarray, warp: Warp, interpolation: int, fill: Colour | None
) -> np.ndarray:
    size = (warp.side, warp.side)
    mode = cv2.BORDER_REFLECT_101 if fill is None else cv2.BORDER_CONSTANT
    if warp.bend is not None:
        places = _places(warp)  # x and y are in one map, so the second is None
        return cv2.remap(source, places, None, interpolation, None, mode, fill or 0)  # type: ignore[call-overload]
    flags = interpolation | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(source, warp.matrix[:2], size, None, flags, mode, fill or 0)


def _places(warp: Warp) -> Float[np.ndarray, "side side 2"]:
    """Return the source point of every pixel: exact on a coarse grid, bilinear in between."""
    assert warp.bend is not None
    cells = -(-warp.side // GRID) + 2  # one extra cell at either end, for interpolation
    centres = (np.arange(cells) - 0.5) * GRID - 0.5
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    crop = _transform(warp.to_crop, grid)
    bent = crop + warp.side * warp.bend(crop / warp.side)
    source = _transform(warp.to_source, bent).reshape(cells, cells, 2).astype(np.float32)
    fine = cv2.resize(source, (cells * GRID, cells * GRID), interpolation=cv2.INTER_LINEAR)
    return fine[GRID : GRID + warp.side, GRID : GRID + warp.side]


def _transform(matrix: Matrix, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    return points @ matrix[:2, :2].T + matrix[:2, 2][None]
