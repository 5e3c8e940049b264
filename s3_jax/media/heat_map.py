"""Heat maps: probabilities drawn as colours over a frame."""

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

OPACITY = 0.65
_BAR_HEIGHT = 12


def draw_heat(
    image: UInt8[np.ndarray, "h w 3"], prob: Float32[np.ndarray, "h2 w2"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a probability map over the greyed frame, from dark blue (0) to dark red (1).

    The frame shows through where the probability is low. `prob` is resized if its size differs from
    the frame's.
    """
    height, width = image.shape[:2]
    prob = cv2.resize(prob, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    opacity = OPACITY * np.minimum(1, 0.35 + prob)[..., None]
    return (grey * (1 - opacity) + _colours(prob) * opacity).astype(np.uint8)


def colour_bar(width: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return a colour bar of this width in pixels, from 0 on the left to 1 on the right."""
    return _colours(np.tile(np.linspace(0, 1, width, dtype=np.float32), (_BAR_HEIGHT, 1)))


def _colours(prob: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    levels = (prob * 255).round().astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
