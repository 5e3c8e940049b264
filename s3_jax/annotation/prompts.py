"""Masks from clicks and boxes; this module is the only caller of the prompt head."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from s3_jax.errors import InputError

Probabilities = Float[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]
Points = Sequence[Sequence[float]]
Box = Sequence[float]


class Prompts:
    """Masks of one video from clicks and boxes.

    load: creates the head, which has `encode(image)` and `prompt(features, points, labels, box,
      previous_mask)`. Called once, when the head is first needed.
    image: returns a frame by its index.
    """

    KEPT = 2  # keep the features of the current and the previous frame

    def __init__(
        self, load: Callable[[], Any], image: Callable[[int], UInt8[np.ndarray, "h w 3"]]
    ) -> None:
        self._load, self._image = load, image
        self._head: Any = None
        self._problem = ""
        self._lock = threading.Lock()
        self._features: OrderedDict[int, Any] = OrderedDict()
        self._last: tuple[int, Probabilities] | None = None  # frame and answer

    def problem(self) -> str:
        """Load the head if necessary, and return the reason if it cannot be loaded, else ""."""
        with self._lock:
            if self._head is None and not self._problem:
                try:
                    self._head = self._load()
                except (ImportError, InputError) as error:
                    self._problem = str(error)
            return self._problem

    def mask(
        self, frame: int, points: Points, labels: Sequence[int], box: Box | None, shown: Mask
    ) -> Mask:
        """Return the mask for points (label 1: inside, 0: outside) and a box.

        Args:
          points: positions (x, y) in pixels.
          shown: the object's current mask, which clicks correct; a box alone starts over.

        Raises:
          InputError: there is no head, or the frame cannot be decoded.
        """
        if self.problem():
            raise InputError(self.problem())
        with self._lock:
            features = self._features_of(frame)
            previous = self._previous(frame, shown) if len(points) else None
            found = self._head.prompt(features, points, labels, box, previous)
            self._last = frame, np.asarray(found, np.float32)
            return self._last[1] > 0.5

    def _previous(self, frame: int, shown: Mask) -> Probabilities | Mask | None:
        """Return the mask to correct, as probabilities if it is the unchanged last answer."""
        if not shown.any():
            return None
        if self._last and self._last[0] == frame and np.array_equal(self._last[1] > 0.5, shown):
            return self._last[1]
        return shown

    def _features_of(self, frame: int) -> Any:
        if frame not in self._features:
            self._features[frame] = self._head.encode(self._image(frame))
            while len(self._features) > self.KEPT:
                self._features.popitem(last=False)
        self._features.move_to_end(frame)
        return self._features[frame]
