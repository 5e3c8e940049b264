"""Weights of the two directions in the frames of an annotated video."""

from collections.abc import Callable

from s3_jax.annotation.given import Given
from s3_jax.propagation.joining import Share, share


def shares_of(given: Given) -> Callable[[int], dict[int, Share]]:
    """Return a function that maps a frame to each object's weight of the forward direction."""
    frames = {i: [f for f in given.frames if i in given.ids(f)] for i in given.object_ids}
    shown = {i: [f for f in given.frames if i in given.shown(f)] for i in given.object_ids}

    def shares(index: int) -> dict[int, Share]:
        """Return the forward direction's weight for each object in a frame."""
        return {i: share(frames[i], shown[i], index) for i in frames if shown[i]}

    return shares
