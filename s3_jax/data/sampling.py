"""Sampling of the frames and objects of a training clip (paper section 4.1)."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Integer, UInt8

from s3_jax.data.config import Number

REDRAWS = 20  # attempts to draw frames whose first is not known to be empty


def max_skip(skips: Sequence[tuple[Number, int]], progress: Number, frame_interval: int) -> int:
    """Return the largest distance between neighbouring frames of a clip, in annotated frames.

    Args:
      skips: see `data.config.DataConfig`.
      progress: completed fraction of the training run, 0 to 1.
      frame_interval: distance between annotated frames in frames of the original video.
    """
    skip = [distance for start, distance in skips if start <= progress][-1]
    return max(1, skip // frame_interval)


def draw_frames(
    rng: np.random.Generator,
    num_frames: int,
    count: int,
    skip: int,
    reverse: Number,
    empty: frozenset[int] = frozenset(),
) -> list[int]:
    """Draw `count` different frames, in playing order, each within `skip` of another.

    The single frame of a photograph is repeated, and a video with fewer than `count` frames is
    played back and forth.

    Args:
      reverse: probability of playing backwards.
      empty: frames with which the clip should not start, unless no other start is found.
    """
    if num_frames == 1:
        return [0] * count
    for _ in range(REDRAWS):
        frames = _draw_neighbours(rng, num_frames, min(count, num_frames), skip)
        if rng.random() < reverse:
            frames.reverse()
        if frames[0] not in empty:
            break
    return _back_and_forth(frames, count)


def _back_and_forth(frames: list[int], count: int) -> list[int]:
    """Extend a sequence to `count` frames by reversing direction at its ends."""
    period = frames + frames[-2:0:-1]
    return [period[i % len(period)] for i in range(count)]


def _draw_neighbours(rng: np.random.Generator, num_frames: int, count: int, skip: int) -> list[int]:
    """Draw a random frame, then others within `skip` of any drawn so far; return them sorted."""
    chosen = np.zeros(num_frames, bool)
    near = np.zeros(num_frames, bool)
    following = int(rng.integers(num_frames))
    for _ in range(count):
        chosen[following] = True
        near[max(0, following - skip) : following + skip + 1] = True
        candidates = np.flatnonzero(near & ~chosen)
        if len(candidates):
            following = int(rng.choice(candidates))
    return [int(index) for index in np.flatnonzero(chosen)]


def object_ids(ids: Integer[np.ndarray, "h w"]) -> list[int]:
    """Return the ids in a mask in ascending order, without background."""
    if ids.dtype == np.uint8:
        return [int(i) for i in np.flatnonzero(np.bincount(ids.ravel(), minlength=1)) if i]
    return [int(i) for i in np.unique(ids) if i]


def choose(rng: np.random.Generator, present: Sequence[int], most: int) -> list[int]:
    """Choose at most `most` random ids, in ascending order.

    Args:
      present: ids to choose from.
      most: largest number of ids.
    """
    if len(present) <= most:
        return list(present)
    return sorted(int(i) for i in rng.choice(np.asarray(present), most, replace=False))


def relabel(ids: Integer[np.ndarray, "h w"], chosen: Sequence[int]) -> UInt8[np.ndarray, "h w"]:
    """Relabel the chosen ids as 1, 2, ... in their order; all other ids become background."""
    if ids.dtype == np.uint8:
        table = np.zeros(256, np.uint8)
        table[np.asarray(chosen, int)] = np.arange(1, len(chosen) + 1)
        return cv2.LUT(ids, table)
    labels = np.zeros(ids.shape, np.uint8)
    for label, object_id in enumerate(chosen, 1):
        labels[ids == object_id] = label
    return labels
