"""Simulated users who click and draw boxes, and the quality (J) of the resulting masks.

A user clicks where the error is largest, on the point farthest from the edge of a missing or wrong
region. The first click is on the innermost point of the mask.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

from s3_jax.prompting.prompter import Prompter

Image = UInt8[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]
Probability = Float32[np.ndarray, "h w"]
Points = list[tuple[float, float]]
Box = tuple[int, ...]
# (points, labels, box, previous answer) -> probability of the object
Answer = Callable[[Points, list[int], Box | None, Probability | None], Probability]


class Example(NamedTuple):
    """A picture with one object."""

    name: str
    image: Image
    mask: Mask


def next_click(truth: Mask, guess: Mask) -> tuple[tuple[float, float], int] | None:
    """Return position (x, y) and label of the next click; None if the mask is correct."""
    missed, wrong = _inner_distance(truth & ~guess), _inner_distance(guess & ~truth)
    deepest = missed if missed.max() >= wrong.max() else wrong
    if deepest.max() == 0:
        return None
    row, column = np.unravel_index(deepest.argmax(), deepest.shape)
    return (float(column) + 0.5, float(row) + 0.5), int(truth[row, column])


def clicked(answer: Answer, truth: Mask, clicks: int) -> Iterator[float]:
    """Yield J after every click, up to `clicks` of them, until the mask is correct."""
    points: Points = []
    labels: list[int] = []
    found: Probability | None = None
    guess = np.zeros_like(truth)
    for _ in range(clicks):
        click = next_click(truth, guess)
        if click is not None:
            points.append(click[0])
            labels.append(click[1])
            found = answer(points, labels, None, found)
            guess = found > 0.5
        yield overlap(truth, guess)


def boxed(answer: Answer, truth: Mask) -> float:
    """Return J of the mask predicted from the object's bounding box."""
    rows, columns = (np.flatnonzero(truth.any(axis)) for axis in (1, 0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return overlap(truth, answer([], [], box, None) > 0.5)


def overlap(truth: Mask, guess: Mask) -> float:
    """Return J, the intersection over union; 1 if both masks are empty."""
    either = np.count_nonzero(truth | guess)
    return np.count_nonzero(truth & guess) / either if either else 1.0


def prompter_answers(prompter: Prompter, image: Image) -> Answer:
    """Return a function that answers prompts with a prompter; encode the image once, here."""
    features = prompter.encode(image)

    def answer(
        points: Points, labels: list[int], box: Box | None, previous: Probability | None
    ) -> Probability:
        """Return the prompter's answer."""
        return prompter.prompt(features, points, labels, box, previous)

    return answer


def grab_cut_answers(image: Image, iterations: int = 5) -> Answer:
    """Return a function that answers prompts with OpenCV's GrabCut.

    Clicks and the area outside a box are marked as certain, and everything else as probable.
    """
    bgr = np.ascontiguousarray(image[..., ::-1])

    def answer(
        points: Points, labels: list[int], box: Box | None, previous: Probability | None
    ) -> Probability:
        """Return GrabCut's answer, with probabilities 0 and 1."""
        marks = _marks(bgr.shape[:2], points, labels, box, previous)
        on_object = np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD))
        if 0 < np.count_nonzero(on_object) < on_object.size:
            background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
            all_of_it = (0, 0, 0, 0)  # ignored in this mode
            cv2.grabCut(bgr, marks, all_of_it, background, foreground, iterations,
                        cv2.GC_INIT_WITH_MASK)  # fmt: skip
        return np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)

    return answer


def _marks(
    size: tuple[int, int],
    points: Points,
    labels: list[int],
    box: Box | None,
    previous: Probability | None,
) -> Shaped[np.ndarray, "h w"]:
    """Return GrabCut's initial labels.

    A disc around the first click, half the short side in diameter, is marked as probable object.
    """
    marks = np.full(size, cv2.GC_PR_BGD, np.uint8)
    if box is not None:
        marks[:] = cv2.GC_BGD
        marks[box[1] : box[3], box[0] : box[2]] = cv2.GC_PR_FGD
    if previous is not None:
        marks[previous > 0.5] = cv2.GC_PR_FGD
    elif points:
        centre = (int(points[0][0]), int(points[0][1]))
        cv2.circle(marks, centre, min(size) // 4, cv2.GC_PR_FGD, -1)
    for (x, y), label in zip(points, labels, strict=True):
        cv2.circle(marks, (int(x), int(y)), 5, cv2.GC_FGD if label else cv2.GC_BGD, -1)
    return marks


def _inner_distance(mask: Mask) -> Float32[np.ndarray, "h w"]:
    """Return the distance to the nearest pixel outside the mask or beyond the picture's edges."""
    return cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
