"""Weights of the forward and backward results in the frames of an annotated video."""

from collections.abc import Callable

from s3_jax.annotation.given import Given
from s3_jax.propagation.joining import Share, share


def shares_of(given: Given) -> Callable[[int], dict[int, Share]]:
    """Return a function that maps a frame to the weight of each object's forward result."""
    frames = {i: [f for f in given.frames if i in given.ids(f)] for i in given.object_ids}
    shown = {i: [f for f in given.frames if i in given.shown(f)] for i in given.object_ids}

    def shares(index: int) -> dict[int, Share]:
        """Return the weight of each object's forward result in a frame."""
        return {i: share(frames[i], shown[i], index) for i in frames if shown[i]}

    return shares
