"""Masks from clicks and boxes: an image is encoded once, then each prompt yields a mask.

Each prompt is processed twice: on the whole image, then on a window around the first answer.
"""

import functools
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Shaped, UInt8

from s3_jax.errors import InputError
from s3_jax.models.efficientnet import DetailedMaps
from s3_jax.models.prompt_head import PromptHead, PromptLogits, trunk_maps
from s3_jax.models.prompt_maps import MASK_STRIDE, NONE, Prompts
from s3_jax.models.variables import Variables
from s3_jax.prompting.windows import (
    BEYOND,
    CLOSE_SIZE,
    Size,
    Window,
    close_window,
    extent,
    whole_window,
)

Values = np.ndarray | Sequence[Any]  # numbers of one or several points or boxes

# The capacity for points starts here and doubles as needed, so few programs are compiled.
FEWEST_PLACES = 16
# A close window is used only if it shows this much more detail than the whole image.
WORTHWHILE = 1.1


class ImageFeatures(NamedTuple):
    """An image encoded by `Prompter.encode`, for any number of prompts."""

    image: UInt8[np.ndarray, "h w 3"]
    whole: "View"


class View(NamedTuple):
    """A window of an image, the size at which it is encoded, and the trunk's feature maps."""

    window: Window
    size: Size
    maps: DetailedMaps


class Said(NamedTuple):
    """A validated prompt, in pixels of the image."""

    points: Float32[np.ndarray, "n 2"]
    labels: Shaped[np.ndarray, "n"]
    box: Float32[np.ndarray, "4"] | None
    previous: Float32[np.ndarray, "h w"] | None


class Prompter:
    """Masks from clicks and boxes, with the prompt head of a checkpoint.

        prompter = Prompter("s3_lite")
        features = prompter.encode(image)
        mask = prompter.prompt(features, [(210, 140)]) > 0.5
        mask = prompter.prompt(features, [(210, 140), (40, 60)], [1, 0], previous_mask=mask) > 0.5

    Results depend only on the arguments.
    """

    def __init__(self, checkpoint: str | os.PathLike[str] = "s3_lite"):
        from s3_jax.checkpoints.prompts import load_prompt_variables

        self._start(*load_prompt_variables(checkpoint))

    @classmethod
    def from_variables(cls, trunk: Variables, head: dict[str, Any]) -> "Prompter":
        """Build a prompter from the variables of an EfficientNet-Lite0 and of a prompt head."""
        prompter = cls.__new__(cls)
        prompter._start(trunk, head)
        return prompter

    def _start(self, trunk: Variables, head: dict[str, Any]) -> None:
        self._trunk, self._head = jax.device_put((trunk, head))
        self._encode = jax.jit(_encode)
        self._decode = jax.jit(_decode)

    def encode(self, image: np.ndarray) -> ImageFeatures:
        """Encode an image, uint8 (h, w, 3), for prompts.

        Raises:
          InputError: the array is not a uint8 RGB image.
        """
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(
                f"the image is {image.dtype} of shape {image.shape}, but must be uint8 (h, w, 3)"
            )
        return ImageFeatures(image, self._view(image, *whole_window(image.shape[:2])))

    def prompt(
        self,
        features: ImageFeatures,
        points: Values = (),
        labels: Values | None = None,
        box: Values | None = None,
        previous_mask: np.ndarray | None = None,
    ) -> Float32[np.ndarray, "h w"]:
        """Return the probability of one object at every pixel.

        Args:
          features: the encoded image, from `encode`.
          points: positions (x, y) in pixels of all clicks for this object so far.
          labels: for each point, 1 if it is on the object (the default), 0 if it is not.
          box: approximate left, top, right, bottom of the object.
          previous_mask: the previous answer, or any mask to correct, as (h, w) bool or
            probabilities.

        Raises:
          InputError: no argument locates the object, or the arguments do not match the image.
        """
        size = features.image.shape[:2]
        said = check_prompt(size, points, labels, box, previous_mask)
        found = self._answer(features.whole, size, said)
        window = close_window(_around(found, said), size)
        if _detail(window, CLOSE_SIZE) < WORTHWHILE * _detail(*features.whole[:2]):
            return found
        close = self._view(features.image, window, CLOSE_SIZE)
        nearby = self._answer(close, size, said._replace(previous=found))
        seen = window.back(np.ones(CLOSE_SIZE, np.float32), size)
        return nearby * seen + found * (1 - seen)

    def prepare(self, size: Size) -> None:
        """Compile the programs for images of this (height, width), or load them from JAX's cache.

        The first click is then as fast as later ones.
        """
        blank = np.zeros((*size, 3), np.uint8)
        said = check_prompt(size, [(0.5, 0.5)], None, None, None)
        close = Window(0.0, 0.0, float(size[1]), float(size[0]))
        for view in (self.encode(blank).whole, self._view(blank, close, CLOSE_SIZE)):
            self._answer(view, size, said)

    def _view(self, image: UInt8[np.ndarray, "h w 3"], window: Window, size: Size) -> View:
        seen = window.view_of(image, size, BEYOND)
        return View(window, size, self._encode(self._trunk, seen))

    def _answer(self, view: View, size: Size, said: Said) -> Float32[np.ndarray, "h w"]:
        """Return probabilities for an image of this size; they are 0 outside the view."""
        prompts = prompts_in_view(view.window, view.size, said)
        found = self._decode(self._head, view.maps, prompts)
        return view.window.back(np.asarray(found), size)


def prompt(
    image: np.ndarray,
    points: Values = (),
    labels: Values | None = None,
    box: Values | None = None,
    previous_mask: np.ndarray | None = None,
) -> Float32[np.ndarray, "h w"]:
    """Return the probability of one object at every pixel of a uint8 RGB image, using s3_lite.

    For several prompts on an image, a `Prompter` is faster. See `Prompter.prompt` for arguments and
    errors.
    """
    prompter = _usual_prompter()
    return prompter.prompt(prompter.encode(image), points, labels, box, previous_mask)


@functools.cache
def _usual_prompter() -> Prompter:
    return Prompter()


def _encode(trunk: Variables, image: UInt8[Array, "h w 3"]) -> DetailedMaps:
    return trunk_maps(trunk, image[None] / jnp.float32(255))


def _decode(head: dict[str, Any], maps: DetailedMaps, prompts: Prompts) -> Float[Array, "h2 w2"]:
    logits = cast(PromptLogits, PromptHead().apply({"params": head}, maps, prompts))
    return jax.nn.sigmoid(logits.fine[0])


def prompts_in_view(window: Window, size: Size, said: Said) -> Prompts:
    """Return the network's input for a prompt: in pixels of a view, padded to a fixed capacity."""
    places = FEWEST_PLACES
    while places < len(said.points):
        places *= 2
    points, labels = np.zeros((1, places, 2), np.float32), np.full((1, places), NONE, np.int32)
    count = len(said.points)
    points[0, :count] = window.points_from(said.points, size)
    inside = ((points[0, :count] >= 0) & (points[0, :count] <= size[::-1])).all(1)
    labels[0, :count] = np.where(inside, said.labels, NONE)
    corners = np.zeros((2, 2)) if said.box is None else said.box.reshape(2, 2)
    half = (size[0] // MASK_STRIDE, size[1] // MASK_STRIDE)
    previous = np.zeros(half, np.float32)
    if said.previous is not None:
        previous = window.view_of(said.previous, half)
    box = window.points_from(corners, size).reshape(1, 4)
    boxed, given = (np.array([x is not None], np.float32) for x in (said.box, said.previous))
    return Prompts(*map(jnp.asarray, (points, labels, box, boxed, previous[None], given)))


def _around(found: Float32[np.ndarray, "h w"], said: Said) -> tuple[float, float, float, float]:
    """Return a box around the answer and the prompt."""
    on_object = said.points[said.labels == 1]
    boxes = [np.concatenate([on_object, on_object], 1)]
    if said.box is not None:
        boxes.append(said.box[None])
    for mask in (found, said.previous):
        box = None if mask is None else extent(mask > 0.5)
        if box is not None:
            boxes.append(np.array([box]))
            break
    every = np.concatenate(boxes)
    left, top = map(float, every[:, :2].min(0))
    right, bottom = map(float, every[:, 2:].max(0))
    return left, top, right, bottom


def _detail(window: Window, size: Size) -> float:
    """Return the number of pixels of a view per pixel of the image, along one side."""
    return math.sqrt(size[0] * size[1] / (window.width * window.height))


def check_prompt(
    size: Size,
    points: Values,
    labels: Values | None,
    box: Values | None,
    previous_mask: np.ndarray | None,
) -> Said:
    """Convert a prompt to arrays.

    Args:
      size: height and width of the image.
      points, labels, box, previous_mask: see `Prompter.prompt`.

    Raises:
      InputError: no argument locates the object, or the arguments do not match the image.
    """
    said = Said(
        *_checked_points(size, points, labels),
        None if box is None else _checked_box(size, box),
        None if previous_mask is None else _checked_mask(size, previous_mask),
    )
    empty = said.previous is None or not (said.previous > 0.5).any()
    if said.box is None and empty and not (said.labels == 1).any():
        raise InputError(
            "nothing says where the object is: give a point on it (label 1), a box or a mask"
        )
    return said


def _checked_points(
    size: Size, points: Values, labels: Values | None
) -> tuple[Float32[np.ndarray, "n 2"], Shaped[np.ndarray, "n"]]:
    found = _numbers("points", points).reshape(-1, 2) if np.size(points) else np.zeros((0, 2))
    marks = np.ones(len(found), np.int32) if labels is None else np.asarray(labels)
    if np.size(points) != 2 * len(found) or marks.shape != (len(found),):
        raise InputError(f"{len(found)} points have {marks.size} labels: give one label per point")
    if not np.isin(marks, (0, 1)).all():
        raise InputError(f"labels are {marks.tolist()}, but each must be 1 (object) or 0 (not)")
    _require_inside("point", found, size)
    return found.astype(np.float32), marks.astype(np.int32)


def _numbers(name: str, values: Values) -> Float[np.ndarray, "..."]:
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} are not numbers: {error}") from error
    if not np.isfinite(numbers).all():
        raise InputError(f"{name} must be finite numbers")
    return numbers


def _require_inside(what: str, points: Float[np.ndarray, "n 2"], size: Size) -> None:
    outside = ((points < 0) | (points > np.array([size[1], size[0]]))).any(1)
    if outside.any():
        x, y = points[outside][0]
        raise InputError(f"{what} {x:g},{y:g} is outside the image of {size[1]}x{size[0]}")


def _checked_box(size: Size, box: Values) -> Float32[np.ndarray, "4"]:
    sides = _numbers("the box's sides", box)
    if sides.shape != (4,) or (sides[:2] >= sides[2:]).any():
        raise InputError(f"the box is {sides.tolist()}, but must be left, top, right, bottom")
    _require_inside("the box's corner", sides.reshape(2, 2), size)
    return sides.astype(np.float32)


def _checked_mask(size: Size, mask: np.ndarray) -> Float32[np.ndarray, "h w"]:
    mask = np.asarray(mask)
    if mask.shape != size:
        raise InputError(
            f"the previous mask has shape {mask.shape}, but must have the image's, {size}"
        )
    values = mask.astype(np.float32)
    if not ((values >= 0) & (values <= 1)).all():
        raise InputError("the previous mask must be bool, or probabilities from 0 to 1")
    return values
