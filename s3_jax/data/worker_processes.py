"""Worker processes that start fast and stay small.

A spawned process imports its parent's main module, here a training script with everything it
needs, and grain imports JAX where it finds it: hundreds of megabytes and seconds for each
worker, none of which makes clips. Processes started inside `light_processes()` import this module
as their main module instead, and it hides JAX from them.
"""

import contextlib
import sys
from collections.abc import Iterator

import cv2
from absl import logging

if __name__ == "__mp_main__":  # the name a spawned process gives its main module
    sys.modules["jax"] = None  # type: ignore[assignment]
    logging.set_verbosity(logging.ERROR)  # grain warns that it is missing


@contextlib.contextmanager
def light_processes() -> Iterator[None]:
    """Spawned processes that start inside do not import the program's main module, nor JAX."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = sys.modules[__name__]
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def set_up_worker(index: int, count: int) -> None:
    """Processes share the cores among themselves, so each keeps to one."""
    cv2.setNumThreads(1)
    logging.set_verbosity(logging.WARNING)
