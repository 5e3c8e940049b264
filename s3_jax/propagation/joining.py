"""One result from two: a frame that was segmented forwards and backwards.

Per object and pixel the two log-odds are averaged, weighted by the distance to the frames whose
masks were given and by how sure each direction is of the object in that frame. Objects are then
compared as everywhere (`models.masks.aggregate`): background is where none of them is.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Integer, UInt8

Share = float  # of the forward direction, from 0 to 1


class Quantized(NamedTuple):
    """Probabilities of objects, without background, in 8 bits."""

    ids: tuple[int, ...]
    prob: UInt8[np.ndarray, "k h w"]


def quantize(prob: Float32[np.ndarray, "n h w"], ids: tuple[int, ...]) -> Quantized:
    """Probabilities, background first, of a frame in 8 bits."""
    return Quantized(ids, np.rint(prob[1:] * 255).astype(np.uint8))


def join(
    forward: Quantized, backward: Quantized, shares: dict[int, Share]
) -> tuple[Integer[np.ndarray, "h w"], dict[int, float]]:
    """Return object ids per pixel, and the confidence of every object.

    shares: per object how much forwards counts by distance: 1 at the given mask before the frame,
      0 at the one after it. Objects that are not in it are left out; those that only one direction
      knows come from that one.
    """
    sides = [dict(zip(side.ids, side.prob, strict=True)) for side in (forward, backward)]
    ids = [id_ for id_ in shares if any(id_ in side for side in sides)]
    best = np.zeros(forward.prob.shape[1:], np.float32)
    labels = np.zeros(best.shape, np.int32)
    none = np.ones(best.shape, np.float32)
    for number, id_ in enumerate(ids, 1):
        joined = _joined([side.get(id_) for side in sides], shares[id_])
        labels[joined > best] = number
        np.maximum(best, joined, out=best)
        none *= 1 - joined
    labels[none >= best] = 0
    table = np.array([0, *ids])
    return table[labels], _confidences(ids, labels, best)


def _joined(
    sides: list[UInt8[np.ndarray, "h w"] | None], share: Share
) -> Float32[np.ndarray, "h w"]:
    forward, backward = sides
    if forward is None or backward is None:
        only = backward if forward is None else forward
        assert only is not None
        return only.astype(np.float32) / 255
    weights = np.array([share * _sureness(forward), (1 - share) * _sureness(backward)])
    total = weights.sum()
    weight = np.float32(weights[0] / total if total else share)
    log_odds = weight * _LOG_ODDS[forward] + (1 - weight) * _LOG_ODDS[backward]
    return 1 / (1 + np.exp(-log_odds))


def _sureness(prob: UInt8[np.ndarray, "h w"]) -> float:
    """The mean probability where an object is likelier than not; little where it is nowhere."""
    inside = prob > 127
    return float(prob[inside].mean()) / 255 if inside.any() else 0.1


def _confidences(
    ids: list[int], labels: Integer[np.ndarray, "h w"], best: Float32[np.ndarray, "h w"]
) -> dict[int, float]:
    pixels = np.bincount(labels.ravel(), minlength=len(ids) + 1)
    sums = np.bincount(labels.ravel(), best.ravel(), minlength=len(ids) + 1)
    return {id_: float(sums[n] / max(pixels[n], 1)) for n, id_ in enumerate(ids, 1)}


_PROB = np.clip(np.arange(256, dtype=np.float32) / 255, 1 / 510, 1 - 1 / 510)
_LOG_ODDS = np.log(_PROB / (1 - _PROB)).astype(np.float32)
