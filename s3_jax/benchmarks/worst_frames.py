"""Pictures of the worst frames, with the prediction filled and the annotation outlined."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from absl import logging
from jaxtyping import Integer, UInt8

from s3_jax.benchmarks.protocols import Protocol
from s3_jax.benchmarks.report import Report
from s3_jax.benchmarks.score_folders import MASK_SUFFIX
from s3_jax.benchmarks.scoring import SequenceTask, read_labels
from s3_jax.benchmarks.summary import SequenceSummary
from s3_jax.errors import InputError
from s3_jax.media.image_files import IMAGE_SUFFIXES, read_image
from s3_jax.media.overlay import draw_overlay

MOST_PICTURES = 240
PICTURE_WIDTH = 480
JPEG_QUALITY = 82
Picture = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True)
class WorstFrame:
    """A frame of one result, with its scores (averaged over objects) and its picture as JPEG."""

    frame: str
    region: float
    boundary: float
    jpeg: bytes


def choose_worst_frames(sequences: Sequence[SequenceSummary], count: int) -> list[str]:
    """Return the names of up to `count` frames of a sequence with the lowest scores in any result.

    Frames are at least a tenth of the sequence apart, so one mistake is not shown several times.
    """
    means = [sequence.frame_means() for sequence in sequences]
    frames = list(means[0])
    lowest = [min(sum(scores[frame]) for scores in means) for frame in frames]
    apart = max(1, len(frames) // 10)
    chosen: list[int] = []
    candidates = set(range(len(frames)))
    while candidates and len(chosen) < count:
        # Among equally bad frames, take the one farthest from those already chosen.
        index = min(candidates, key=lambda i: (round(lowest[i], 2), -_distance(i, chosen), i))
        chosen.append(index)
        candidates -= set(range(index - apart + 1, index + apart))
    return [frames[index] for index in sorted(chosen)]


def _distance(index: int, others: Sequence[int]) -> int:
    return min((abs(index - other) for other in others), default=0)


def draw_worst_frames(
    report: Report, tasks: Sequence[SequenceTask], images: Path | None, count: int
) -> dict[str, list[list[WorstFrame]]]:
    """Draw up to `count` frames of each sequence, and return them by sequence, frame and result.

    If there would be more than `MOST_PICTURES`, only the worst sequences get pictures. A sequence
    whose frames are not found in the directory `images` gets none.
    """
    pictures: dict[str, list[list[WorstFrame]]] = {}
    by_name = {task.name: task for task in tasks}
    left = MOST_PICTURES
    for name in report.worst_first():
        sequences = [run.sequences[name] for run in report.runs]
        if images is None or left < len(sequences):
            break
        frames = choose_worst_frames(sequences, min(count, left // len(sequences)))
        drawn = [_draw(by_name[name], sequences, images / name, frame) for frame in frames]
        found = [row for row in drawn if row]
        if found:
            pictures[name] = found
            left -= len(found) * len(sequences)
    return pictures


def _draw(
    task: SequenceTask, sequences: Sequence[SequenceSummary], images: Path, frame: str
) -> list[WorstFrame]:
    """Draw a frame for every result; return an empty list if its image is missing or damaged."""
    image = find_image(images, frame)
    if image is None:
        return []
    try:
        return [
            WorstFrame(
                frame,
                *sequence.frame_means()[frame],
                picture_of(image, task.annotations, folder, frame, task.protocol),
            )
            for sequence, folder in zip(sequences, task.results, strict=True)
        ]
    except InputError as error:  # a bad picture must not stop scoring
        logging.warning("no picture of %s: %s", image, error)
        return []


def find_image(folder: Path, frame: str) -> Path | None:
    """Return the image file of a frame, in any format, or None."""
    candidates = (folder / f"{frame}{suffix}" for suffix in sorted(IMAGE_SUFFIXES))
    return next((path for path in candidates if path.is_file()), None)


def picture_of(
    image: Path, annotation: Path, result: Path | None, frame: str, protocol: Protocol
) -> bytes:
    """Draw one result over a frame and return it as JPEG.

    Args:
      annotation, result: folders of the sequence; a mask that the result lacks counts as empty.
    """
    truth, _ = read_labels(annotation / f"{frame}{MASK_SUFFIX}", protocol)
    predicted = np.zeros_like(truth)
    if result is not None and (path := result / f"{frame}{MASK_SUFFIX}").is_file():
        predicted, _ = read_labels(path, protocol)
    picture = _fitted(read_image(image), truth.shape)
    picture = draw_overlay(picture, predicted)
    _outline(picture, truth)
    height, width = truth.shape
    if width > PICTURE_WIDTH:
        size = (PICTURE_WIDTH, round(height * PICTURE_WIDTH / width))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", picture[..., ::-1], quality)[1].tobytes()


def _fitted(picture: Picture, shape: tuple[int, ...]) -> UInt8[np.ndarray, "out_h out_w 3"]:
    """Resize a frame to the size of its annotation."""
    height, width = shape
    if picture.shape[:2] == (height, width):
        return picture
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _outline(picture: Picture, labels: Integer[np.ndarray, "h w"]) -> None:
    """Draw white contours with a dark rim, visible on any colour (in place)."""
    width = max(1, round(max(picture.shape[:2]) / PICTURE_WIDTH))
    for object_id in np.unique(labels):
        if object_id:
            mask = (labels == object_id).astype(np.uint8)
            contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, contours, -1, (0, 0, 0), width + 2, cv2.LINE_AA)
            cv2.drawContours(picture, contours, -1, (255, 255, 255), width, cv2.LINE_AA)
