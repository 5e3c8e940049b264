"""Worker processes that start fast and need little memory.

A spawned process imports its parent's main module (here a training script and everything it needs),
and grain imports JAX if it is installed. This costs each worker seconds and hundreds of megabytes,
although making clips needs neither import. Processes started inside `light_processes()` import this
module as their main module instead, and it hides JAX from them.
"""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
from absl import logging

from s3_jax.errors import InputError

SHARED_MEMORY = Path("/dev/shm")  # its location on Linux

if __name__ == "__mp_main__":  # the main module's name in a spawned process
    sys.modules["jax"] = None  # type: ignore[assignment]
    logging.set_verbosity(logging.ERROR)  # grain warns that JAX is missing


@contextlib.contextmanager
def light_processes() -> Iterator[None]:
    """Keep processes that are spawned in this context from importing the main module and JAX."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = sys.modules[__name__]
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def set_up_worker(index: int, count: int) -> None:
    """Limit OpenCV to one thread per worker, so that workers share the machine's cores."""
    cv2.setNumThreads(1)
    logging.set_verbosity(logging.WARNING)


def require_shared_memory(size: int) -> None:
    """Require `size` bytes of shared memory, which workers use to pass on their clips.

    Without this check, processes would die without a message when shared memory runs out.

    Raises:
      InputError: fewer bytes are free.
    """
    if not SHARED_MEMORY.is_dir():
        return
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < size:
        raise InputError(
            f"worker processes need up to {size >> 20} MB of shared memory, but {SHARED_MEMORY} "
            f"has {free >> 20} MB: lower num_workers or clips_ahead, or give a container more "
            "(docker run --shm-size)"
        )
