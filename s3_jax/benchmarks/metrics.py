"""Region similarity J, boundary measure F and their statistics over time.

Definitions are those of the DAVIS benchmarks (Perazzi et al., CVPR 2016; Pont-Tuset et al., 2017),
and values match those of their public evaluation. J is the intersection over union of two masks. F
is the harmonic mean of boundary precision and recall, with a tolerance of 0.8 % of the image
diagonal.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, Int, Integer, UInt8

from s3_jax.benchmarks.boundary import BoundaryMatches, match_boundaries

BOUNDARY_TOLERANCE = 0.008

Labels = Integer[np.ndarray, "h w"]
Binary = UInt8[np.ndarray, "n h w"]


@dataclasses.dataclass(frozen=True)
class FrameScores:
    """Scores of r predictions of one frame for k objects.

    region: J, from 0 to 1.
    boundary: F, from 0 to 1.
    annotation_areas, prediction_areas: area of each object in pixels.
    """

    region: Float[np.ndarray, "r k"]
    boundary: Float[np.ndarray, "r k"]
    annotation_areas: Int[np.ndarray, " k"]
    prediction_areas: Int[np.ndarray, "r k"]


@dataclasses.dataclass(frozen=True)
class Statistics:
    """J or F over an object's frames: mean, share above 0.5, and drop from start to end."""

    mean: float
    recall: float
    decay: float


def boundary_radius(height: int, width: int) -> int:
    """Return the tolerance of the boundary measure, in pixels, for frames of a size."""
    return math.ceil(BOUNDARY_TOLERANCE * math.hypot(height, width))


def score_frame(
    annotation: Labels, predictions: Sequence[Labels], ids: Sequence[int]
) -> FrameScores:
    """Return J and F of every object in every prediction of a frame.

    An object that is neither annotated nor predicted scores 1. Void pixels must have been cleared
    (`clear_void`).

    Args:
      annotation: object id of every pixel, 0 for background.
      predictions: the same for each of r results, at the annotation's size.
      ids: the k objects to score.
    """
    radius = boundary_radius(*annotation.shape)
    labels = _crop([annotation, *predictions])
    region = np.empty((len(predictions), len(ids)))
    boundary = np.empty_like(region)
    areas = np.empty((len(labels), len(ids)), np.int64)
    for column, object_id in enumerate(ids):
        masks = (labels == object_id).view(np.uint8)
        masks = _crop(masks) if len(ids) > 1 else masks
        areas[:, column] = [cv2.countNonZero(mask) for mask in masks]
        region[:, column] = _region_similarities(masks, areas[:, column].tolist())
        boundary[:, column] = _boundary_measures(match_boundaries(masks, radius))
    return FrameScores(region, boundary, areas[0], areas[1:])


def clear_void(
    annotation: Labels, predictions: Sequence[Labels], void: int
) -> tuple[Labels, list[Labels]]:
    """Set pixels annotated as `void` to background, in the annotation and in all predictions.

    Args:
      annotation: object id of every pixel.
      predictions: results for the same frame, at the annotation's size.
      void: the id that marks void pixels in the annotation.
    """
    ignored = annotation == void
    if not ignored.any():
        return annotation, list(predictions)
    annotation, *cleared = (np.where(ignored, 0, image) for image in (annotation, *predictions))
    return annotation, cleared


def statistics(values: Float[np.ndarray, " t"]) -> Statistics:
    """Return mean, recall and decay of J or F over t >= 1 frames, as in the DAVIS evaluation.

    The decay is the mean over the first quarter of the frames minus that over the last quarter. A
    frame on the border between two quarters belongs to both. (The public evaluation stores the ends
    of quarters in 8 bits, so its decay is wrong for objects with more than 256 frames.)
    """
    edges = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return Statistics(
        mean=float(values.mean()),
        recall=float((values > 0.5).mean()),
        decay=float(first.mean() - last.mean()),
    )


def _crop(images: Sequence[Labels] | Binary) -> Integer[np.ndarray, "n inner_h inner_w"]:
    """Crop all images to their common non-zero region, with a border of one pixel if possible."""
    height, width = images[0].shape
    union = functools.reduce(np.bitwise_or, images)
    if union.dtype != np.uint8:
        union = (union != 0).view(np.uint8)
    x, y, box_width, box_height = cv2.boundingRect(union)
    rows = slice(max(y - 1, 0), min(y + box_height + 1, height))
    columns = slice(max(x - 1, 0), min(x + box_width + 1, width))
    return np.stack([image[rows, columns] for image in images])


def _region_similarities(masks: Binary, areas: Sequence[int]) -> list[float]:
    scores = []
    for mask, area in zip(masks[1:], areas[1:], strict=True):
        both = cv2.countNonZero(mask & masks[0])
        either = areas[0] + area - both
        scores.append(both / either if either else 1.0)
    return scores


def _boundary_measures(found: BoundaryMatches) -> list[float]:
    scores = []
    for pixels, matched, annotation_matched in zip(
        found.predictions, found.predictions_matched, found.annotation_matched, strict=True
    ):
        precision = matched / pixels if pixels else 0.0
        recall = annotation_matched / found.annotation if found.annotation else 0.0
        neither = not pixels and not found.annotation
        total = precision + recall
        scores.append(1.0 if neither else 2 * precision * recall / total if total else 0.0)
    return scores
