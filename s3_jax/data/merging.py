"""Composition of clips: the objects of one clip are pasted over another."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from s3_jax.data.sampling import choose, object_ids, relabel

BLUR = (5, 5)  # Gaussian window that softens pasted outlines
PASSING = 0.7  # fraction of motions that cross other objects; in the rest, objects leave and return


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """Frames, and masks with ids 1..num_objects, all of which appear in the first frame."""

    frames: UInt8[np.ndarray, "t h w 3"]
    masks: UInt8[np.ndarray, "t h w"]
    num_objects: int


def paste(upper: Clip, lower: Clip) -> Clip:
    """Paste the objects of `upper` over `lower`; their ids follow those of `lower`.

    Lower objects that are hidden in the first frame keep their ids (see `limit`).
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


def centre(labels: UInt8[np.ndarray, "h w"]) -> tuple[float, float] | None:
    """Return the mean position x, y of all object pixels; None if there are none."""
    moments = cv2.moments((labels > 0).astype(np.uint8), binaryImage=True)
    if not moments["m00"]:
        return None
    return moments["m10"] / moments["m00"], moments["m01"] / moments["m00"]


def across(rng: np.random.Generator, upper: Clip, lower: Clip) -> Clip:
    """Move the objects of `upper` over those of `lower`, or out of the picture and back."""
    if rng.random() < PASSING:
        return over(rng, upper, lower)
    side, count = upper.masks.shape[1], len(upper.masks)
    reach = np.sin(np.linspace(0, np.pi, count)) * rng.uniform(0.4, 1.2) * side
    return moved(upper, reach[:, None] * _direction(rng)[None])


def over(rng: np.random.Generator, upper: Clip, lower: Clip) -> Clip:
    """Move `upper` so that its objects pass over those of `lower` in the middle of the clip.

    The clip is returned unchanged if either has no objects.
    """
    here, there = centre(upper.masks[0]), centre(lower.masks[len(lower.masks) // 2])
    if here is None or there is None:
        return upper
    side, count = upper.masks.shape[1], len(upper.masks)
    reach = np.linspace(-1, 1, count) * rng.uniform(0.2, 0.6) * side
    path = np.array(there)[None] + reach[:, None] * _direction(rng)[None]
    return moved(upper, path - np.array(here)[None])


def _direction(rng: np.random.Generator) -> Float[np.ndarray, "2"]:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def moved(clip: Clip, offsets: Float[np.ndarray, "t 2"]) -> Clip:
    """Shift every frame by its offset x, y, rounded to pixels.

    Pixels uncovered at the edges become black background.
    """
    size = clip.masks.shape[2], clip.masks.shape[1]
    frames, masks = [], []
    for frame, mask, (x, y) in zip(clip.frames, clip.masks, np.round(offsets), strict=True):
        shift = np.array([[1.0, 0, x], [0, 1, y]])
        frames.append(cv2.warpAffine(frame, shift, size, flags=cv2.INTER_NEAREST))
        masks.append(cv2.warpAffine(mask, shift, size, flags=cv2.INTER_NEAREST))
    return Clip(np.stack(frames), np.stack(masks), clip.num_objects)


def hidden(lower: Clip, occluder: Clip) -> Clip:
    """Return the lower clip behind the objects of an occluder, which get no ids."""
    pasted = paste(occluder, lower)
    masks = np.where(pasted.masks > lower.num_objects, np.uint8(0), pasted.masks)
    return Clip(pasted.frames, masks, lower.num_objects)


def limit(rng: np.random.Generator, clip: Clip, most: int) -> Clip:
    """Keep up to `most` random objects from the first frame; the others become background."""
    chosen = choose(rng, object_ids(clip.masks[0]), most)
    if len(chosen) == clip.num_objects:
        return clip
    masks = np.stack([relabel(mask, chosen) for mask in clip.masks])
    return Clip(clip.frames, masks, len(chosen))
