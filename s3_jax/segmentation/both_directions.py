"""Segmentation in both directions: a mask on a later frame also fills the frames before it.

    given = masks_used(masks, config)
    config = dataclasses.replace(config, keep_before=given.last)
    done, problem = segment(session, source, masks, folder, config)      # forwards, as always
    finished = fill_backwards(session, source, masks, folder, config, given)

The second pass starts at the last mask and ends at the first frame. In frames that already have a
forward result, both results are joined (`propagation.joining`). Either pass can be interrupted and
resumed.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from s3_jax.media.background import WriteBehind, prefetch
from s3_jax.media.mask_files import Mask
from s3_jax.media.resize import shrink_image, shrunk_size
from s3_jax.media.video_files import Frame, VideoSource
from s3_jax.propagation.ahead import encode_ahead
from s3_jax.propagation.joining import Share, join, quantize, read_quantized, share
from s3_jax.segmentation.run_folder import RunFolder
from s3_jax.segmentation.video import (
    SAVE_SECONDS,
    MaskSource,
    Progress,
    Result,
    Saver,
    SegmentConfig,
    Segmenter,
    Step,
    advance,
    given_ids,
    save_result,
    tracked_image,
)

READ_AT_ONCE = 256 * 2**20  # bytes of frames to decode forwards at a time and then use in reverse


@runtime_checkable
class Rewindable(Segmenter, Protocol):
    """A session that can restart and reserve capacity for objects known in advance."""

    def reset(self) -> None:
        """Forget the video, so that another one can start."""
        ...

    def reserve(self, objects: int, buckets: int) -> None:
        """Reserve capacity for objects and buckets that will be added later."""
        ...


@runtime_checkable
class ListedMasks(MaskSource, Protocol):
    """Masks with known frames; `files` maps frame indices to files."""

    files: dict[int, Path]


@dataclasses.dataclass(frozen=True)
class GivenMasks:
    """The masks of a video that a run uses.

    wanted: for each frame, the objects whose masks are taken from it.
    clears: frames whose empty mask removes all objects.
    """

    wanted: Mapping[int, frozenset[int]]
    clears: frozenset[int]

    @property
    def last(self) -> int:
        """The last frame that shows an object."""
        return max(self.wanted)

    @property
    def frames_of(self) -> dict[int, list[int]]:
        """The frames that show each object, by id."""
        ids = sorted(frozenset().union(*self.wanted.values()))
        return {i: [f for f in sorted(self.wanted) if i in self.wanted[f]] for i in ids}

    def shares(self, index: int) -> dict[int, Share]:
        """Return the weight of each object's forward result in a frame."""
        return {
            id_: share(sorted({*shown, *self.clears}), shown, index)
            for id_, shown in self.frames_of.items()
        }

    def reserve(self, session: Rewindable, forwards: bool) -> None:
        """Reserve capacity for all objects of one direction, to avoid recompilation later."""
        end = min if forwards else max
        entries = {end(shown) for shown in self.frames_of.values()}
        session.reserve(len(self.frames_of), len(entries))


def masks_used(masks: ListedMasks, config: SegmentConfig) -> GivenMasks:
    """Return the masks that `segment` uses: all of them, or the first of each object.

    Raises:
      InputError: a mask cannot be used.
    """
    known: set[int] = set()
    wanted: dict[int, frozenset[int]] = {}
    clears: set[int] = set()
    for index in sorted(masks.files):
        mask = masks.read(index)
        ids = frozenset(mask.object_ids if mask else ())
        new = ids if config.all_masks else ids - known
        known |= ids
        if new:
            wanted[index] = new
        elif config.all_masks and config.empty_clears and not ids:
            clears.add(index)
    return GivenMasks(wanted, frozenset(clears))


def fill_backwards(
    session: Rewindable,
    source: VideoSource,
    masks: MaskSource,
    folder: RunFolder,
    config: SegmentConfig,
    given: GivenMasks,
    progress: Progress = Progress(),  # noqa: B008 it is frozen
    save_seconds: float = SAVE_SECONDS,
) -> bool:
    """Segment from the last mask back to the first frame, resuming where the last run stopped.

    Results of frames before that mask are rewritten. Memory does not grow with the length of the
    video.

    Args:
      given: the masks that are used, from `masks_used`.
      progress: callbacks, as in `segment`.
      save_seconds: seconds between saves of the session.

    Returns:
      True if the first frame was reached.

    Raises:
      InputError: a frame or mask is damaged.
      OSError: a result could not be written.
    """
    session.reset()
    given.reserve(session, forwards=False)
    done = folder.load_session(session, "backward")
    progress.started(done)
    steps = prefetch(_steps(source, masks, config, given, given.last - done))
    saver = Saver(session, folder, save_seconds, "backward")
    lost, stopped = list(source.lost), False
    ahead = encode_ahead(session, steps, tracked_image)
    with WriteBehind() as writer, contextlib.closing(steps), contextlib.closing(ahead):
        for step, encoded in ahead:
            result = advance(session, step, encoded)
            if result is not None and step.frame.index < given.last:
                shares = given.shares(step.frame.index)
                writer.submit(_keep, folder, config, masks.first, step, result, shares)
            done = given.last - step.frame.index + 1
            progress.advanced()
            stopped = progress.stop()
            if stopped:
                break
            saver.save_if_due(writer, done)
        saver.save(writer, done)
    source.lost = lost  # decoding in pieces did not record all lost frames
    return not stopped


def backwards(source: VideoSource, last: int) -> Iterator[Frame]:
    """Yield frames from `last` down to the first, decoding one piece of the video at a time.

    Raises:
      InputError: a frame is damaged and the source does not skip such frames.
    """
    height, width = source.size
    length = max(1, READ_AT_ONCE // (3 * height * width))
    for end in range(last + 1, 0, -length):
        start = max(0, end - length)
        piece = _until(source.frames(start), end)
        while piece:
            yield piece.pop()


def _until(frames: Iterator[Frame], end: int) -> list[Frame]:
    """Return the frames before `end`, without decoding the next one, which may be damaged."""
    piece: list[Frame] = []
    while not piece or piece[-1].index < end - 1:
        frame = next(frames, None)
        if frame is None or frame.index >= end:
            break
        piece.append(frame)
    return piece


def _steps(
    source: VideoSource, masks: MaskSource, config: SegmentConfig, given: GivenMasks, last: int
) -> Iterator[Step]:
    size = shrunk_size(source.size, config.short_side)
    for frame in backwards(source, last):
        wanted = set(given.wanted.get(frame.index, ()))
        mask: Mask | None = masks.read(frame.index) if wanted else None
        ids = given_ids(mask, wanted, size) if mask else None
        file = mask.path if mask else None
        clears = frame.index in given.clears
        image = shrink_image(frame.image, size)
        yield Step(frame, image, ids, file, frame.index == 0, clears)


def _keep(
    folder: RunFolder,
    config: SegmentConfig,
    first: Mask,
    step: Step,
    result: Result,
    shares: Mapping[int, Share],
) -> None:
    """Write a frame's result, joined with that of the other direction if there is one."""
    if config.saved is not None and step.frame.name not in config.saved:
        return
    other = folder.forward / f"{step.frame.name}.npz"
    if other.exists():
        own = quantize(np.asarray(result.prob), result.object_ids)
        result = join(read_quantized(other), own, shares)
    save_result(folder, config, first, step, result)
