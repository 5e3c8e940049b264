"""Encoding frames ahead of their turn, on CPUs.

A frame's operations are too small to keep all cores busy all the time. While one thread runs a
step, another encodes the next frame in the gaps. Accelerators get no such thread: JAX returns
before a step is done there, so their queues stay filled.
"""

import contextlib
from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from s3_jax.errors import InputError
from s3_jax.media.background import prefetch

Item = TypeVar("Item")
DEPTH = 1  # encoded frames that wait for their steps; another may be in work


@runtime_checkable
class Encoder(Protocol):
    """The part of `session.Session` that this module uses."""

    def encode(self, image: np.ndarray) -> Any: ...


def encode_ahead(
    session: Encoder,
    items: Iterable[Item],
    image_of: Callable[[Item], np.ndarray | None],
) -> Generator[tuple[Item, Any], None, None]:
    """Yield items with the images of their frames, encoded in a thread that runs ahead.

    The thread also advances `items`, and stays at most three items ahead. An image that `encode`
    refuses is yielded as it is, so that `Session.step` refuses it when its turn comes.

    Args:
      image_of: returns an item's image, RGB and uint8, or None if it need not be encoded.

    Returns:
      Pairs of an item and its encoded frame; or the image, on accelerators; or None.
    """
    import jax  # late: modules of commands import this one, and loading JAX takes seconds

    if jax.default_backend() != "cpu":
        return ((item, image_of(item)) for item in items)

    def encoded() -> Generator[tuple[Item, Any], None, None]:
        """Yield the pairs."""
        for item in items:
            image = image_of(item)
            frame: Any = image
            if image is not None:
                with contextlib.suppress(InputError):
                    # Otherwise unfinished frames would pile up.
                    frame = jax.block_until_ready(session.encode(image))
            yield item, frame

    return prefetch(encoded(), DEPTH)
