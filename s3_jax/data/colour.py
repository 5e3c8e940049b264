"""Colour jitter: all changes to a frame, composed into one linear map of its colours."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from s3_jax.data.config import ColourConfig, Number

# Luma of ITU-R BT.601, and the two colour-difference axes that span the plane of hue rotation.
_LUMA = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
Order = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ColourChange:
    """Factors for brightness, contrast and saturation, a hue rotation in turns, and their order."""

    brightness: Number = 1.0
    contrast: Number = 1.0
    saturation: Number = 1.0
    hue: Number = 0.0
    order: Order = (0, 1, 2, 3)


GREY = ColourChange(saturation=0.0)


def sample_colour(rng: np.random.Generator, jitter: ColourConfig) -> ColourChange:
    """Sample changes uniformly within the ranges of `jitter`, in random order."""
    brightness, contrast, saturation = (
        float(rng.uniform(max(0.0, 1 - most), 1 + most))
        for most in (jitter.brightness, jitter.contrast, jitter.saturation)
    )
    hue = float(rng.uniform(-jitter.hue, jitter.hue))
    order = tuple(int(i) for i in rng.permutation(4))
    return ColourChange(brightness, contrast, saturation, hue, order)


def recolour(
    image: UInt8[np.ndarray, "h w 3"], changes: list[ColourChange]
) -> UInt8[np.ndarray, "h w 3"]:
    """Apply the changes in order, and clip to 0..255 once, at the end."""
    linear, offset = np.eye(3), np.zeros(3)
    mean = image[::8, ::8].reshape(-1, 3).mean(axis=0, dtype=np.float64)
    for change in changes:
        for step in change.order:
            matrix, grey = _step(change, step)
            offset = matrix @ offset + grey * (_LUMA @ (linear @ mean + offset))
            linear = matrix @ linear
    return cv2.transform(image, np.column_stack([linear, offset]))


def _step(change: ColourChange, step: int) -> tuple[Float[np.ndarray, "3 3"], Number]:
    """Return one change as a matrix, and the fraction of the picture's mean luma that it adds.

    Contrast scales colours about that mean, saturation about the pixel's own luma.
    """
    if step == 0:
        return change.brightness * np.eye(3), 0.0
    if step == 1:
        return change.contrast * np.eye(3), 1 - change.contrast
    if step == 2:
        own_luma = np.broadcast_to(_LUMA, (3, 3))
        return change.saturation * np.eye(3) + (1 - change.saturation) * own_luma, 0.0
    return _hue_rotation(change.hue), 0.0


def _hue_rotation(turns: Number) -> Float[np.ndarray, "3 3"]:
    cos, sin = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    turn = np.array([[1.0, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return np.linalg.inv(_YIQ) @ turn @ _YIQ
