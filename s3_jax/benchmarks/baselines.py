"""Tracking without a trained network: baselines that any trained method should beat.

Each baseline takes the frames of a video and the object ids of the first frame, and yields the ids
of every frame in order, including the first.
"""

from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import Float32, Integer, UInt8

Image = UInt8[np.ndarray, "h w 3"]
Ids = Integer[np.ndarray, "h w"]
Baseline = Callable[[Iterable[Image], Ids], Iterator[Ids]]


def copy_first_mask(images: Iterable[Image], first: Ids) -> Iterator[Ids]:
    """Yield the first mask for every frame."""
    for _ in images:
        yield first


def warp_by_optical_flow(images: Iterable[Image], first: Ids) -> Iterator[Ids]:
    """Warp soft masks from frame to frame by DIS optical flow (medium preset).

    Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016, as in OpenCV.
    """
    objects = object_ids(first)
    soft = one_hot(first, objects)
    estimate = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before: np.ndarray | None = None
    for image in images:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if before is not None:
            backward = estimate.calc(grey, before, None)  # type: ignore[call-overload]
            soft = _warped(soft, backward)
        yield hard_labels(soft, objects)
        before = grey


def object_ids(ids: Ids) -> np.ndarray:
    """Return the ids of a mask in ascending order, without 0."""
    found = np.unique(ids)
    return found[found > 0]


def one_hot(ids: Ids, objects: np.ndarray) -> Float32[np.ndarray, "k h w"]:
    """Return a channel of zeros and ones for every object."""
    return (ids[None] == objects[:, None, None]).astype(np.float32)


def hard_labels(soft: Float32[np.ndarray, "k h w"], objects: np.ndarray) -> Ids:
    """Return the most probable object of every pixel, or 0 if none exceeds one half."""
    best = soft.argmax(axis=0)
    return np.where(soft.max(axis=0) > 0.5, objects[best], 0)


def _warped(
    soft: Float32[np.ndarray, "k h w"], backward: Float32[np.ndarray, "h w 2"]
) -> Float32[np.ndarray, "k h w"]:
    """Warp the previous frame's soft masks to this frame by the flow that points back to it."""
    height, width = backward.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    places = (x + backward[..., 0], y + backward[..., 1])
    return np.stack([cv2.remap(channel, *places, cv2.INTER_LINEAR) for channel in soft])
