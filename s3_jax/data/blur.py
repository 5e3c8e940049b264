"""Blur for clips: defocus, and camera motion while the shutter is open."""

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from s3_jax.data.config import BlurConfig, Number

Kernel = Float[np.ndarray, "_ _"]
Frames = UInt8[np.ndarray, "t h w 3"]
STEPS = 64  # points along a path in a kernel


def sample_blurs(
    rng: np.random.Generator, config: BlurConfig, side: int, count: int
) -> list[Kernel] | None:
    """Sample a blur kernel for each of `count` frames, or None for a sharp clip.

    Args:
      side: side of the crop in pixels.
    """
    if config.share <= 0 or rng.random() >= config.share:
        return None
    sigma = rng.uniform(0, config.defocus) * side
    angle = rng.uniform(0, np.pi)
    lengths = rng.uniform(0, config.motion, count) * side
    return [path_kernel(length, angle, sigma) for length in lengths]


def path_kernel(length: Number, angle: Number, sigma: Number) -> Kernel:
    """Return the blur kernel of a point that moves along a line, normalized to sum to 1.

    Args:
      length: length of the line in pixels.
      angle: direction of the line in radians.
      sigma: standard deviation of the defocused point in pixels.
    """
    radius = int(np.ceil(length / 2 + 3 * sigma)) + 1
    path = np.linspace(-length / 2, length / 2, STEPS)
    grid = np.arange(-radius, radius + 1)
    # A kernel narrower than about half a pixel would shift a sharp point.
    spread = 2 * max(sigma, 0.3) ** 2
    across = np.exp(-((grid[None] - path[:, None] * np.cos(angle)) ** 2) / spread)
    down = np.exp(-((grid[None] - path[:, None] * np.sin(angle)) ** 2) / spread)
    kernel = down.T @ across
    return kernel / kernel.sum()


def blur(frames: Frames, kernels: list[Kernel] | None) -> Frames:
    """Apply a blur kernel to each frame."""
    if kernels is None:
        return frames
    pairs = zip(frames, kernels, strict=True)
    return np.stack(
        [cv2.filter2D(frame, -1, kernel, borderType=cv2.BORDER_REFLECT) for frame, kernel in pairs]
    )
