"""How much each direction counts in a frame, by its distance to the given masks on both sides."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable

from s3_jax.annotation.given import Given
from s3_jax.propagation.joining import Share


def shares_of(given: Given) -> Callable[[int], dict[int, Share]]:
    """Return a function from a frame to the share of the forward direction, per object.

    It falls evenly from 1 at a given mask to 0 at the next. A direction that has not seen the
    object before the frame counts nothing.
    """
    frames = {i: [f for f in given.frames if i in given.ids(f)] for i in given.object_ids}
    seen = {i: [f for f in given.frames if i in given.shown(f)] for i in given.object_ids}

    def shares(index: int) -> dict[int, Share]:
        return {i: _share(frames[i], seen[i], index) for i in frames if seen[i]}

    return shares


def _share(frames: list[int], seen: list[int], index: int) -> Share:
    """frames: with a mask of the object, ascending. seen: those where the mask is not empty."""
    if index < seen[0]:
        return 0.0
    if index > seen[-1] or frames[bisect_left(frames, index)] == index:
        return 1.0
    before, after = frames[bisect_right(frames, index) - 1], frames[bisect_left(frames, index)]
    return (after - index) / (after - before)
