"""Procedural pictures: textures, shapes, and sprites (textured shapes with alpha)."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

Picture = UInt8[np.ndarray, "_ _ 3"]
Sprite = UInt8[np.ndarray, "_ _ 4"]
Values = Float32[np.ndarray, "_ _"]


def sprite(rng: np.random.Generator, size: int, pictures: Sequence[Picture] = ()) -> Sprite:
    """Sample a textured shape in a square of `size` pixels, as RGB and coverage.

    The texture extends beyond the outline so that interpolation does not darken the rim.
    """
    shape = _SHAPES[rng.integers(len(_SHAPES))](rng, size)
    colours = surface(rng, size, size, pictures).astype(np.float32)
    shaded = colours * _relief(rng, shape)[..., None]
    return np.dstack([shaded.clip(0, 255).astype(np.uint8), shape])


def surface(
    rng: np.random.Generator, height: int, width: int, pictures: Sequence[Picture] = ()
) -> Picture:
    """Sample a texture: a random crop of one of the pictures or, without any, a procedural one."""
    if pictures:
        return _piece(rng, pictures[int(rng.integers(len(pictures)))], height, width)
    values = _PATTERNS[rng.integers(len(_PATTERNS))](rng, height, width)
    grain = 0.08 * noise(rng, height, width, cells=max(4, min(height, width) // 4), octaves=1)
    return _coloured(rng, values + grain)


def noise(
    rng: np.random.Generator, height: int, width: int, cells: float | int = 4, octaves: int = 4
) -> Values:
    """Sample smooth noise in [0, 1] by adding random grids with `cells`, 2 * `cells`, ... per side.

    Each grid has half the weight of the previous one.

    Args:
      height, width: size in pixels.
      cells: cells per side of the coarsest grid.
      octaves: number of grids.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        side = max(2, round(cells * 2**octave))
        grid = rng.random((side, side), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    return (total - total.min()) / max(float(np.ptp(total)), 1e-6)


def _piece(rng: np.random.Generator, picture: Picture, height: int, width: int) -> Picture:
    """Return a random crop of the right shape, at least half the picture's size, resized."""
    tall, wide = picture.shape[:2]
    scale = min(tall / height, wide / width) * rng.uniform(0.5, 1)
    rows, columns = max(1, int(height * scale)), max(1, int(width * scale))
    top, left = rng.integers(tall - rows + 1), rng.integers(wide - columns + 1)
    crop = picture[top : top + rows, left : left + columns]
    return cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)


def _coloured(rng: np.random.Generator, values: Values) -> Picture:
    """Map values to a gradient of two to five random colours with some contrast."""
    count = int(rng.integers(2, 6))
    anchors = rng.uniform(0, 255, (count, 3))
    anchors[1] = (anchors[0] + rng.uniform(80, 175, 3)) % 256
    grey = anchors.mean(axis=1, keepdims=True)
    anchors = grey + rng.uniform(0.1, 1) * (anchors - grey)  # natural colours are rarely saturated
    positions = np.linspace(0, 255, count)
    ramp = np.stack([np.interp(np.arange(256), positions, anchors[:, c]) for c in range(3)], -1)
    return ramp.astype(np.uint8)[(values.clip(0, 1) * 255).astype(np.uint8)]


def _clouds(rng: np.random.Generator, height: int, width: int) -> Values:
    return noise(rng, height, width, cells=rng.uniform(2, 10), octaves=5)


def _marble(rng: np.random.Generator, height: int, width: int) -> Values:
    bend = rng.uniform(3, 15) * noise(rng, height, width, cells=3, octaves=4)
    return 0.5 + 0.5 * np.sin(_phase(rng, height, width, rng.uniform(1, 6)) + bend)


def _stripes(rng: np.random.Generator, height: int, width: int) -> Values:
    bend = rng.uniform(0, 3) * noise(rng, height, width, cells=2, octaves=2)
    wave = np.sin(_phase(rng, height, width, rng.uniform(3, 14)) + bend)
    return (0.5 + rng.uniform(0.5, 5) * wave).clip(0, 1)


def _checks(rng: np.random.Generator, height: int, width: int) -> Values:
    one, other = (_stripes(rng, height, width) for _ in range(2))
    return np.abs(one - other)


def _spots(rng: np.random.Generator, height: int, width: int) -> Values:
    canvas = noise(rng, height, width, cells=3, octaves=3) * 0.4
    largest = max(2, min(height, width) // 10)
    for _ in range(rng.integers(20, 80)):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        radius = int(rng.integers(1, largest + 1))
        cv2.circle(canvas, centre, radius, float(rng.uniform(0.5, 1)), -1, cv2.LINE_AA)
    return canvas


_PATTERNS: tuple[Callable[[np.random.Generator, int, int], Values], ...] = (
    _clouds,
    _marble,
    _stripes,
    _checks,
    _spots,
)


def _phase(rng: np.random.Generator, height: int, width: int, periods: float) -> Values:
    """Return a linear phase of `periods` turns across the picture in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    rate = 2 * np.pi * periods / max(height, width)
    rows = np.arange(height, dtype=np.float32)[:, None] * np.float32(np.sin(angle) * rate)
    columns = np.arange(width, dtype=np.float32)[None] * np.float32(np.cos(angle) * rate)
    return rows + columns


Coverage = UInt8[np.ndarray, "_ _"]


def _blob(rng: np.random.Generator, size: int) -> Coverage:
    """Draw a closed curve whose radius is a short random Fourier series."""
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radius = np.ones_like(angles)
    for order in range(1, 7):
        amplitude = rng.uniform(0, 0.55) / order
        radius += amplitude * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
    return _polygon(size, angles, radius.clip(0.15))


def _star(rng: np.random.Generator, size: int) -> Coverage:
    """Draw a polygon with straight sides, convex or star-shaped."""
    corners = int(rng.integers(3, 12))
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    angles += rng.uniform(-0.3, 0.3, corners) * 2 * np.pi / corners
    return _polygon(size, angles, rng.uniform(0.45, 1, corners))


def _ring(rng: np.random.Generator, size: int) -> Coverage:
    """Draw a blob with a hole."""
    outer = _blob(rng, size)
    inner = np.zeros_like(outer)
    axes = (int(size * rng.uniform(0.08, 0.2)), int(size * rng.uniform(0.08, 0.2)))
    middle = (size // 2, size // 2)
    cv2.ellipse(inner, middle, axes, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    return cv2.subtract(outer, inner)


def _limbs(rng: np.random.Generator, size: int) -> Coverage:
    """Draw an elongated body with a few bent limbs of varying thickness."""
    canvas = np.zeros((size, size), np.uint8)
    middle = np.array([size / 2, size / 2])
    axes = (int(size * rng.uniform(0.15, 0.3)), int(size * rng.uniform(0.1, 0.2)))
    centre = (size // 2, size // 2)
    cv2.ellipse(canvas, centre, axes, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    for angle in rng.uniform(0, 2 * np.pi, rng.integers(2, 7)):
        bend = angle + rng.uniform(-0.8, 0.8)
        knee = middle + 0.25 * size * np.array([np.cos(angle), np.sin(angle)])
        foot = knee + rng.uniform(0.05, 0.2) * size * np.array([np.cos(bend), np.sin(bend)])
        line = np.round(np.stack([middle, knee, foot])).astype(np.int32)
        thickness = max(2, int(size * rng.uniform(0.05, 0.13)))
        cv2.polylines(canvas, [line], False, 255, thickness, cv2.LINE_AA)
    return canvas


_SHAPES: tuple[Callable[[np.random.Generator, int], Coverage], ...] = (_blob, _star, _ring, _limbs)


def _polygon(size: int, angles: np.ndarray, radius: np.ndarray) -> Coverage:
    """Fill a polygon given in polar coordinates, scaled to nearly fill the square."""
    reach = 0.48 * size * radius / radius.max()
    points = np.stack([np.cos(angles) * reach, np.sin(angles) * reach], axis=-1) + size / 2
    canvas = np.zeros((size, size), np.uint8)
    fixed_point = np.round(points * 16).astype(np.int32)
    cv2.fillPoly(canvas, [fixed_point], 255, cv2.LINE_AA, shift=4)
    return canvas


def _relief(rng: np.random.Generator, shape: Coverage) -> Values:
    """Return the brightness of a rounded body that is lit from one side and darker at its rim."""
    size = shape.shape[0]
    depth = cv2.distanceTransform((shape > 127).astype(np.uint8), cv2.DIST_L2, 3)
    rounded = np.minimum(depth / max(0.15 * size, 1), 1)
    slope = _phase(rng, size, size, 1 / (2 * np.pi)) - 0.5
    return (0.75 + 0.25 * rounded + rng.uniform(0, 0.35) * slope).astype(np.float32)
