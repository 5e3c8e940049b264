"""A stand-in for the session: quick, stateful, and with results that are known in advance.

Each step moves the last mask one pixel to the right. `python -m tests.tools.fake_session` is
the segment command with it; with $DELAY, every frame takes that many seconds.
"""

import os
import time
from pathlib import Path

import numpy as np


class FakeResult:
    def __init__(self, prob: np.ndarray, object_ids: tuple[int, ...]):
        self.prob = prob
        self.object_ids = object_ids

    def index_mask(self) -> np.ndarray:
        return np.array((0, *self.object_ids))[self.prob.argmax(axis=0)]


class FakeSession:
    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.object_ids: tuple[int, ...] = ()
        self.sizes: list[tuple[int, ...]] = []
        self.ends: list[bool] = []
        self._mask: np.ndarray | None = None
        self._given: np.ndarray | None = None

    def reserve(self, objects: int, buckets: int) -> None:
        pass

    def add(self, masks: np.ndarray) -> None:
        self._given = masks

    def encode(self, image: np.ndarray) -> np.ndarray:
        return image

    def step(self, image: np.ndarray, *, end: bool = False) -> FakeResult:
        time.sleep(float(os.environ.get("DELAY", "0")))
        assert image.dtype == np.uint8
        self.sizes.append(image.shape)
        self.ends.append(end)
        size = image.shape[:2]
        moved = np.zeros(size, np.int32) if self._mask is None else np.roll(self._mask, 1, axis=1)
        if self._given is not None:
            if isinstance(self._given, dict):  # masks by id, empty for objects that are gone
                assert not any(mask.any() for mask in self._given.values())
                moved, self._given = np.zeros_like(moved), np.zeros(size, np.int32)
            assert self._given.shape == size
            new = [int(i) for i in np.unique(self._given) if i]
            self.object_ids += tuple(i for i in new if i not in self.object_ids)
            moved = np.where(self._given > 0, self._given, moved)
        self._mask, self._given = moved, None
        channels = [moved == i for i in (0, *self.object_ids)]
        return FakeResult(0.1 + 0.8 * np.stack(channels).astype(np.float32), self.object_ids)

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, mask=self._mask, ids=np.array(self.object_ids))

    def load(self, path: Path) -> None:
        with np.load(path) as state:
            self._mask, self.object_ids = state["mask"], tuple(int(i) for i in state["ids"])


if __name__ == "__main__":
    from s3_jax.cli import (  # here, for their flags are in the way of other commands
        command,
        propagation_flags,
        segment,
    )
    from s3_jax.config import ModelConfig

    segment._find_checkpoint = Path
    propagation_flags._network_of = lambda checkpoint: ModelConfig()
    segment._load_session = lambda checkpoint, config: FakeSession()
    command.run(segment.main)
