"""Probabilities as colours over a frame."""

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

OPACITY = 0.65
_BAR_HEIGHT = 12


def draw_heat(
    image: UInt8[np.ndarray, "h w 3"], prob: Float32[np.ndarray, "h2 w2"]
) -> UInt8[np.ndarray, "h w 3"]:
    """The frame in grey with a probability map over it, from dark blue (0) to dark red (1).

    Where the probability is low the frame shows through.
    """
    height, width = image.shape[:2]
    prob = cv2.resize(prob, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    opacity = OPACITY * np.minimum(1, 0.35 + prob)[..., None]
    return (grey * (1 - opacity) + _colours(prob) * opacity).astype(np.uint8)


def colour_bar(width: int) -> UInt8[np.ndarray, "h w 3"]:
    """The colours from 0 to 1, left to right."""
    return _colours(np.tile(np.linspace(0, 1, width, dtype=np.float32), (_BAR_HEIGHT, 1)))


def _colours(prob: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    levels = (prob * 255).round().astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
