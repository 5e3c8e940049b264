"""Worker processes that start fast and stay small.

A spawned process imports its parent's main module, here a training script with everything it needs,
and grain imports JAX if it is installed: hundreds of megabytes and seconds for each worker, none of
which helps to make clips. Processes started inside `light_processes()` import this module as their
main module instead, and it hides JAX from them.
"""

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
from absl import logging

from s3_jax.errors import InputError

SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps it

if __name__ == "__mp_main__":  # the name a spawned process gives its main module
    sys.modules["jax"] = None  # type: ignore[assignment]
    logging.set_verbosity(logging.ERROR)  # grain warns that it is missing


@contextlib.contextmanager
def light_processes() -> Iterator[None]:
    """Keep processes spawned in this context from importing the main module and JAX."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = sys.modules[__name__]
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def set_up_worker(index: int, count: int) -> None:
    """Limit a worker to one core: the processes share the cores among themselves."""
    cv2.setNumThreads(1)
    logging.set_verbosity(logging.WARNING)


def require_shared_memory(size: int) -> None:
    """Require `size` bytes of shared memory, through which workers hand over their clips.

    Processes die without a message when it runs out.

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
