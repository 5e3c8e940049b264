"""Combination of the forward and backward results of a frame.

For every object and pixel, the log-odds of both are averaged. The weights depend on the distance to
the frames whose masks were given, and on how certain each direction is of the object in this frame.
The usual aggregation over objects and background follows (`models.masks.aggregate`).
"""

import zipfile
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Integer, UInt8

from s3_jax.errors import InputError, reason
from s3_jax.files import replacing

EPSILON = 1e-7  # as in models.masks, whose import would load JAX
Share = float  # of the forward direction, from 0 to 1


class Quantized(NamedTuple):
    """Probabilities of objects, without background, in 8 bits."""

    object_ids: tuple[int, ...]
    prob: UInt8[np.ndarray, "k h w"]


class Joined(NamedTuple):
    """Combined result of a frame from both directions.

    prob: background first, then `object_ids`.
    """

    object_ids: tuple[int, ...]
    prob: Float32[np.ndarray, "n h w"]

    def index_mask(self) -> Integer[np.ndarray, "h w"]:
        """Return the object id of every pixel, 0 for background."""
        return np.array((0, *self.object_ids), np.int32)[self.prob.argmax(axis=0)]

    @property
    def confidence(self) -> dict[int, float]:
        """Mean probability of the pixels where an object wins, by id; 0 if nowhere."""
        labels, best = self.prob.argmax(axis=0).ravel(), self.prob.max(axis=0).ravel()
        pixels = np.bincount(labels, minlength=len(self.prob))
        mean = np.bincount(labels, best, minlength=len(self.prob)) / np.maximum(pixels, 1)
        return {id_: float(mean[n]) for n, id_ in enumerate(self.object_ids, 1)}


def quantize(prob: Float32[np.ndarray, "n h w"], object_ids: tuple[int, ...]) -> Quantized:
    """Return a frame's probabilities (background first) in 8 bits."""
    return Quantized(object_ids, np.rint(prob[1:] * 255).astype(np.uint8))


def write_quantized(path: Path, found: Quantized) -> None:
    """Write a frame's probabilities as compressed npz, atomically."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, ids=np.array(found.object_ids, np.int32), prob=found.prob)


def read_quantized(path: Path) -> Quantized:
    """Read a file that `write_quantized` wrote.

    Raises:
      InputError: the file is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return Quantized(tuple(int(i) for i in arrays["ids"]), arrays["prob"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read ({reason(error)}): start over with --overwrite"
        ) from error


def share(given: Sequence[int], shown: Sequence[int], index: int) -> Share:
    """Return the forward direction's weight in a frame, by its distance to given masks.

    It falls linearly from 1 at a given mask to 0 at the next one. A direction that has not seen the
    object before the frame has no weight.

    Args:
      given: frames with a mask of the object, ascending.
      shown: those where the mask is not empty; at least one.
    """
    if index < shown[0]:
        return 0.0
    place = bisect_left(given, index)
    if index > shown[-1] or given[place] == index:
        return 1.0
    before, after = given[bisect_right(given, index) - 1], given[place]
    return (after - index) / (after - before)


def join(forward: Quantized, backward: Quantized, shares: Mapping[int, Share]) -> Joined:
    """Combine the two results of a frame.

    Args:
      shares: weight of the forward direction, per object (see `share`). Objects not in it are left
        out; objects that only one direction knows are taken from that direction.
    """
    sides = [dict(zip(side.object_ids, side.prob, strict=True)) for side in (forward, backward)]
    ids = tuple(id_ for id_ in shares if any(id_ in side for side in sides))
    prob = np.empty((len(ids) + 1, *forward.prob.shape[1:]), np.float32)
    for number, id_ in enumerate(ids, 1):
        prob[number] = _joined([side.get(id_) for side in sides], shares[id_])
    prob[0] = np.prod(1 - prob[1:], axis=0)
    np.clip(prob, EPSILON, 1 - EPSILON, out=prob)
    prob /= 1 - prob
    prob /= prob.sum(axis=0)
    return Joined(ids, prob)


def _joined(
    sides: list[UInt8[np.ndarray, "h w"] | None], near: Share
) -> Float32[np.ndarray, "h w"]:
    forward, backward = sides
    if forward is None or backward is None:
        only = backward if forward is None else forward
        assert only is not None
        return only.astype(np.float32) / 255
    weights = np.array([near * _sureness(forward), (1 - near) * _sureness(backward)])
    total = weights.sum()
    weight = np.float32(weights[0] / total if total else near)
    log_odds = weight * _LOG_ODDS[forward] + (1 - weight) * _LOG_ODDS[backward]
    return 1 / (1 + np.exp(-log_odds))


def _sureness(prob: UInt8[np.ndarray, "h w"]) -> float:
    """Return the mean probability where it exceeds one half, or a small number if it never does."""
    inside = prob > 127
    return float(prob[inside].mean()) / 255 if inside.any() else 0.1


_PROB = np.clip(np.arange(256, dtype=np.float32) / 255, 1 / 510, 1 - 1 / 510)
_LOG_ODDS = np.log(_PROB / (1 - _PROB)).astype(np.float32)
