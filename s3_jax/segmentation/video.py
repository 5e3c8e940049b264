"""Segmentation of one video into a run folder: frames and masks in, result files out.

frames + masks -> `frame_steps` (in a thread: decode, shrink, choose masks)
-> `segment` (session.add, session.step) -> `save_result` (in threads: mask, scores)
-> `render_overlay` (a second pass over frames and written masks)
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from absl import logging
from jaxtyping import Int32, UInt8

from s3_jax.errors import InputError
from s3_jax.media.background import WriteBehind, prefetch
from s3_jax.media.image_files import shortened
from s3_jax.media.mask_files import Mask, MaskEncoding, read_mask
from s3_jax.media.overlay import draw_overlay, write_video
from s3_jax.media.resize import (
    Size,
    resize_probabilities,
    shrink_ids,
    shrink_image,
    shrunk_size,
)
from s3_jax.media.video_files import Frame, VideoSource
from s3_jax.media.writers import write_mask, write_scores
from s3_jax.propagation.ahead import encode_ahead
from s3_jax.propagation.joining import quantize, write_quantized
from s3_jax.segmentation.run_folder import Pass, RunFolder

SHAPE_TOLERANCE = 0.02  # of the aspect ratio: 854x480 is accepted for 1920x1080
SAVE_SECONDS = 60.0  # at most this much work is lost when a run is killed


@runtime_checkable
class Result(Protocol):
    """A session's result for one frame (see `propagation.session.FrameResult`)."""

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the objects, in the order of the probabilities."""
        ...

    @property
    def prob(self) -> Any:
        """Probabilities `[k + 1, h, w]`, background first."""
        ...

    def index_mask(self) -> np.ndarray:
        """Return the object ids per pixel, `[h, w]`."""
        ...


@runtime_checkable
class Segmenter(Protocol):
    """The part of `propagation.session.Session` that this module uses."""

    @property
    def object_ids(self) -> tuple[int, ...]: ...

    def add(self, masks: Any) -> Any: ...

    def encode(self, image: np.ndarray) -> Any: ...

    def step(self, image: Any, *, end: bool = False) -> Any: ...

    def save(self, path: Path) -> None: ...

    def load(self, path: Path) -> None: ...


@runtime_checkable
class MaskSource(Protocol):
    """Masks given for some frames of a video (see `media.mask_files.MaskFiles`).

    path: the file or directory that they come from.
    first: the first mask that shows objects.
    """

    path: Path
    first: Mask

    def read(self, frame_index: int) -> Mask | None:
        """Return the mask of a frame, or None if there is none."""
        ...


@dataclasses.dataclass(frozen=True)
class SegmentConfig:
    """Frozen settings for reading frames and masks and writing results.

    short_side: frames are shrunk, with antialiasing, to this short side in pixels before
      segmentation; -1 keeps their size.
    all_masks: use every given mask, not only the first of each object.
    save_scores: write probabilities in addition to masks.
    saved: names of the frames for which results are written; None for all.
    size_of_masks: masks may differ from the frames in size, and results have the size of the masks.
      Otherwise all have the frames' size.
    empty_clears: with `all_masks`, a mask without any object removes all objects.
    keep_before: for frames before this index, also keep 8-bit probabilities in the folder's
      `forward_probabilities`, which `both_directions.fill_backwards` reads.
    """

    short_side: int = -1
    all_masks: bool = False
    save_scores: bool = False
    saved: frozenset[str] | None = None
    size_of_masks: bool = False
    empty_clears: bool = False
    keep_before: int = 0


@dataclasses.dataclass(frozen=True)
class Progress:
    """Callbacks of `segment`.

    started: called once with the number of frames done by an earlier run.
    advanced: called after every frame, possibly before its results are written.
    stop: returns True to end after this frame.
    written: called, from other threads, when a frame's results have been written.
    """

    started: Callable[[int], None] = lambda done: None
    advanced: Callable[[], None] = lambda: None
    stop: Callable[[], bool] = lambda: False
    written: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One frame at the size that the session sees, and its ids from a mask file, if any.

    tracked: False before the first object.
    """

    frame: Frame
    image: UInt8[np.ndarray, "h w 3"]
    given: Int32[np.ndarray, "h w"] | None
    mask_file: Path | None
    last: bool
    clears: bool = False
    tracked: bool = True


def check_mask_size(mask: Mask, source: VideoSource) -> None:
    """Raise an InputError with both sizes if a mask does not have the frames' size."""
    if mask.ids.shape != source.size:
        (height, width), (frame_height, frame_width) = mask.ids.shape, source.size
        raise InputError(
            f"{mask.path} is {width}x{height} but the frames of {source.path} are "
            f"{frame_width}x{frame_height}: give a mask of the frames' size"
        )


def check_mask_shape(mask: Mask, source: VideoSource) -> None:
    """Raise an InputError with both sizes if a mask does not have the frames' aspect ratio."""
    (height, width), (frame_height, frame_width) = mask.ids.shape, source.size
    if abs(height * frame_width / (width * frame_height) - 1) > SHAPE_TOLERANCE:
        raise InputError(
            f"{mask.path} is {width}x{height} but the frames of {source.path} are "
            f"{frame_width}x{frame_height}: give a mask of the frames' shape"
        )


def segment(
    session: Segmenter,
    source: VideoSource,
    masks: MaskSource,
    folder: RunFolder,
    config: SegmentConfig,
    progress: Progress = Progress(),
    save_seconds: float = SAVE_SECONDS,
    save_at_end: bool = True,
) -> tuple[int, InputError | None]:
    """Segment a video to its end, starting where the folder's last run stopped.

    Memory does not grow with the length of the video.

    Args:
      save_seconds: seconds between saves of the session.
      save_at_end: also save after the last frame, for callers with more to do before the video is
        finished.

    Returns:
      The number of finished frames, counted from the first, and the error in the next frame, if
        any.

    Raises:
      OSError: a result could not be written; earlier results are kept.
    """
    done = folder.load_session(session)
    progress.started(done)
    steps = prefetch(frame_steps(source, masks, config, done, set(session.object_ids)))
    saver = Saver(session, folder, save_seconds)
    if config.save_scores:
        folder.scores.mkdir(parents=True, exist_ok=True)
    if config.keep_before:
        folder.forward.mkdir(exist_ok=True)
    problem: InputError | None = None
    stopped = False
    ahead = encode_ahead(session, steps, tracked_image)
    with WriteBehind() as writer, contextlib.closing(steps), contextlib.closing(ahead):
        try:
            for step, encoded in ahead:
                result = advance(session, step, encoded)
                writer.submit(_keep, folder, config, masks.first, step, result, progress)
                done = step.frame.index + 1
                progress.advanced()
                stopped = progress.stop()
                if stopped:
                    break
                saver.save_if_due(writer, done)
        except InputError as error:
            problem = error
        if stopped or problem or save_at_end:
            saver.save(writer, done)
    return done, problem


def _keep(
    folder: RunFolder,
    config: SegmentConfig,
    first: Mask,
    step: Step,
    result: Result | None,
    progress: Progress,
) -> None:
    """Write a frame's requested results, or wait until they are computed, and count the frame."""
    if config.saved is None or step.frame.name in config.saved:
        save_result(folder, config, first, step, result)
    elif result is not None:
        result.index_mask()
    if result is not None and step.frame.index < config.keep_before:
        found = quantize(np.asarray(result.prob), result.object_ids)
        write_quantized(folder.forward / f"{step.frame.name}.npz", found)
    progress.written()


class Saver:
    """Periodic saves of the session, each after all earlier results are on disk."""

    def __init__(
        self, session: Segmenter, folder: RunFolder, seconds: float, which: Pass = "resume"
    ):
        self._session, self._folder, self._seconds = session, folder, seconds
        self._which: Pass = which
        self._last = time.monotonic()

    def save_if_due(self, writer: WriteBehind, done: int) -> None:
        """Save the session if the interval has passed."""
        if time.monotonic() - self._last >= self._seconds:
            self.save(writer, done)

    def save(self, writer: WriteBehind, done: int) -> None:
        """Save the session after all pending results have been written."""
        writer.flush()
        if self._session.object_ids:  # nothing to save before the first object
            self._folder.save_session(self._session, done, self._which)
        self._last = time.monotonic()


def render_overlay(
    source: VideoSource,
    folder: RunFolder,
    encoding: MaskEncoding,
    num_frames: int,
    frame_rate: Fraction,
    advanced: Callable[[], None] = lambda: None,
) -> None:
    """Write `overlay.mp4` from the first `num_frames` frames and their mask files.

    Args:
      encoding: encoding of the masks, for the objects' colours.
      frame_rate: frames per second of the video.
      advanced: called after every frame.
    """
    with contextlib.closing(prefetch(source.frames())) as frames:
        shown: list[int] = []

        def pictures() -> Iterator[UInt8[np.ndarray, "h w 3"]]:
            """Yield the frames with their masks drawn on them."""
            for frame in frames:
                mask = read_mask(folder.masks / f"{frame.name}.png", encoding=encoding)
                shown.append(frame.index)
                yield draw_overlay(frame.image, mask.ids, encoding)
                advanced()
                if frame.index + 1 >= num_frames:  # the next frame may be damaged
                    return

        times = source.times
        clock = None if times is None else (times[shown[-1]] for _ in itertools.count())
        write_video(folder.overlay, pictures(), frame_rate, clock)


def frame_steps(
    source: VideoSource, masks: MaskSource, config: SegmentConfig, start: int, known: set[int]
) -> Iterator[Step]:
    """Yield decoded, shrunk frames with their given masks, ready for segmentation.

    Args:
      start: index of the first frame to yield.
      known: ids of objects that already have a mask; new ones are added.
    """
    size = shrunk_size(source.size, config.short_side)
    for frame, last in _with_last(source.frames(start)):
        mask = masks.read(frame.index)
        given = None
        if mask is not None:
            (check_mask_shape if config.size_of_masks else check_mask_size)(mask, source)
            wanted = set(mask.object_ids) - (set() if config.all_masks else known)
            given = given_ids(mask, wanted, size)
            known |= wanted
        clears = config.empty_clears and config.all_masks and mask is not None
        clears = clears and mask is not None and not mask.object_ids
        file = mask.path if mask else None
        yield Step(frame, shrink_image(frame.image, size), given, file, last, clears, bool(known))


def _with_last(frames: Iterator[Frame]) -> Iterator[tuple[Frame, bool]]:
    """Yield each frame, and True if it is known to be the last."""
    held: Frame | None = None
    while True:
        try:
            following = next(frames, None)
        except InputError:
            if held is not None:
                yield held, False
            raise
        if held is not None:
            yield held, following is None
        if following is None:
            return
        held = following


def given_ids(mask: Mask, wanted: set[int], size: Size) -> Int32[np.ndarray, "h w"] | None:
    """Return the wanted ids of a mask at the size that the session sees; None if there are none."""
    if not wanted:
        return None
    ids = shrink_ids(np.where(np.isin(mask.ids, sorted(wanted)), mask.ids, 0), size)
    lost = wanted - {int(i) for i in np.unique(ids)}
    if lost:
        logging.warning(
            "%s: too small to be seen at %dx%d, so not segmented: object %s (give a larger --size)",
            mask.path,
            size[1],
            size[0],
            shortened([str(i) for i in sorted(lost)]),
        )
    return ids if len(lost) < len(wanted) else None


def tracked_image(step: Step) -> UInt8[np.ndarray, "h w 3"] | None:
    """Return the image to encode, or None before the first object."""
    return step.image if step.tracked else None


def advance(session: Segmenter, step: Step, encoded: Any) -> Result | None:
    """Return the session's result for a frame, or None before the first object.

    Args:
      encoded: what `encode_ahead` yielded for the step; not used before the first object.

    Raises:
      InputError: the session rejects the mask.
    """
    if step.given is not None:
        try:
            session.add(step.given)
        except InputError as error:
            raise InputError(f"{step.mask_file}: {error}") from error
    elif not session.object_ids:
        return None
    elif step.clears:
        nothing = np.zeros(step.image.shape[:2], bool)
        session.add(dict.fromkeys(session.object_ids, nothing))
    return session.step(encoded, end=step.last)


def save_result(
    folder: RunFolder,
    config: SegmentConfig,
    first: Mask,
    step: Step,
    result: Result | None,
) -> None:
    """Write the requested results of one frame, in the encoding of the first mask."""
    frame = step.frame
    size = first.ids.shape if config.size_of_masks else frame.image.shape[:2]
    resized = step.image.shape[:2] != size
    if result is not None and not resized and not config.save_scores:
        ids = result.index_mask()  # probabilities can stay on the accelerator
    else:
        ids, prob = at_size(result, size)
        if config.save_scores:
            object_ids = result.object_ids if result else ()
            write_scores(folder.scores / f"{frame.name}.npz", prob, object_ids)
    write_mask(folder.masks / f"{frame.name}.png", ids, first.encoding)


def at_size(result: Result | None, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Return object ids and probabilities at a size; all are background if there is no result."""
    if result is None:
        return np.zeros(size, np.int32), np.ones((1, *size), np.float32)
    prob = resize_probabilities(np.asarray(result.prob), size)
    return np.array((0, *result.object_ids), np.int32)[prob.argmax(axis=0)], prob
