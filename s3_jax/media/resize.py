"""Resizing of frames and masks for segmentation, and of probabilities back to full size."""

import cv2
import numpy as np
from jaxtyping import Float32, Integer, UInt8
from PIL import Image

Size = tuple[int, int]  # height, width


def shrunk_size(size: Size, short_side: int) -> Size:
    """Return the height and width whose short side is at most `short_side`; <= 0 means no limit.

    The long side is rounded down, following the evaluation protocols. Nothing is enlarged.
    """
    shortest = min(size)
    if short_side <= 0 or shortest <= short_side:
        return size
    height, width = (length * short_side // shortest for length in size)
    return height, width


def shrink_image(image: UInt8[np.ndarray, "h w 3"], size: Size) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Resize an image bilinearly with antialiasing (a triangle filter as wide as the scale)."""
    if image.shape[:2] == size:
        return image
    resized = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(resized)


def shrink_ids(ids: Integer[np.ndarray, "h w"], size: Size) -> Integer[np.ndarray, "h2 w2"]:
    """Resize object ids by nearest neighbour, with pixel centres aligned."""
    if ids.shape == size:
        return ids
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(int)
        for new, old in zip(size, ids.shape, strict=True)
    )
    return ids[np.ix_(rows, columns)]


def resize_probabilities(
    prob: Float32[np.ndarray, "k h w"], size: Size
) -> Float32[np.ndarray, "k h2 w2"]:
    """Resize every channel bilinearly, with pixel centres aligned and without antialiasing."""
    if prob.shape[1:] == size:
        return prob
    width_height = (size[1], size[0])
    return np.stack([cv2.resize(p, width_height, interpolation=cv2.INTER_LINEAR) for p in prob])
