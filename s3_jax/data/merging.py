"""Pasting the objects of one clip over another."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import UInt8

from s3_jax.data.sampling import choose, object_ids, relabel

BLUR = (5, 5)  # Gaussian window that softens pasted outlines


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """Frames and their masks, ids 1..num_objects; all objects show in the first frame."""

    frames: UInt8[np.ndarray, "t h w 3"]
    masks: UInt8[np.ndarray, "t h w"]
    num_objects: int


def paste(upper: Clip, lower: Clip) -> Clip:
    """The objects of `upper` over `lower`; its ids follow those of `lower`.

    Lower objects that are hidden in the first frame keep their ids: see `limit`.
    """
    frames, masks = [], []
    layers = zip(upper.frames, upper.masks, lower.frames, lower.masks, strict=True)
    for over, over_mask, under, under_mask in layers:
        inside = (over_mask > 0).astype(np.float32)
        weight = cv2.GaussianBlur(inside, BLUR, 0)
        frames.append(cv2.blendLinear(over, under, weight, 1 - weight))
        masks.append(np.where(over_mask > 0, over_mask + np.uint8(lower.num_objects), under_mask))
    count = lower.num_objects + upper.num_objects
    return Clip(np.stack(frames), np.stack(masks), count)


def limit(rng: np.random.Generator, clip: Clip, most: int) -> Clip:
    """At most `most` of the objects seen in the first frame; the others become background."""
    chosen = choose(rng, object_ids(clip.masks[0]), most)
    if len(chosen) == clip.num_objects:
        return clip
    masks = np.stack([relabel(mask, chosen) for mask in clip.masks])
    return Clip(clip.frames, masks, len(chosen))
