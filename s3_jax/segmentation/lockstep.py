"""Lockstep segmentation of several videos, for devices that a single video cannot keep busy.

Groups depend only on the list of videos, so a resumed run computes the same batches and writes
identical bytes.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from s3_jax.errors import InputError
from s3_jax.media.background import WriteBehind, prefetch
from s3_jax.media.video_files import VideoSource
from s3_jax.segmentation.run_folder import RunFolder
from s3_jax.segmentation.video import (
    MaskSource,
    SegmentConfig,
    Step,
    frame_steps,
    save_result,
)


@runtime_checkable
class Batch(Protocol):
    """The part of `propagation.batch.SessionBatch` that is used here."""

    def start(self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[Any]:
        """Start all videos with their first frames and masks, and return one result per video."""
        ...

    def step(self, images: Sequence[np.ndarray]) -> list[Any]:
        """Segment the next frame of every video, and return one result per video."""
        ...


@dataclasses.dataclass
class Job:
    """One video of a batch.

    folder: the folder for its results; None if they already exist.
    done: number of frames segmented.
    problem: the error that ended it before its last frame, if any.
    """

    source: VideoSource
    masks: MaskSource
    folder: RunFolder | None
    config: SegmentConfig
    done: int = 0
    problem: InputError | None = None


def segment_together(
    batch: Batch, jobs: Sequence[Job], advanced: Callable[[], None], stop: Callable[[], bool]
) -> bool:
    """Segment all videos from their first frames; return False if stopped before the end.

    Args:
      advanced: called after every frame of every video.
      stop: returns True to end after this frame.

    Raises:
      InputError: a video cannot be started.
      OSError: a result could not be written.
    """
    streams = [prefetch(frame_steps(j.source, j.masks, j.config, 0, set())) for j in jobs]
    for job in jobs:
        if job.folder is not None and job.config.save_scores:
            job.folder.scores.mkdir(parents=True, exist_ok=True)
    with WriteBehind() as writer, contextlib.ExitStack() as stack:
        for stream in streams:
            stack.enter_context(contextlib.closing(stream))
        first = [_first(job, stream) for job, stream in zip(jobs, streams, strict=True)]
        images = [step.image for step in first]
        results = batch.start(images, [step.given for step in first if step.given is not None])
        current: list[Step | None] = list(first)
        while True:
            for job, step, result in zip(jobs, current, results, strict=True):
                if step is not None:
                    _keep(writer, job, step, result)
                    advanced()
            current = [_next(job, stream) for job, stream in zip(jobs, streams, strict=True)]
            if not any(current):
                return True
            if stop():
                return False
            images = [step.image if step else image
                      for step, image in zip(current, images, strict=True)]  # fmt: skip
            results = batch.step(images)


def _keep(writer: WriteBehind, job: Job, step: Step, result: Any) -> None:
    saved = job.config.saved
    if job.folder is not None and (saved is None or step.frame.name in saved):
        writer.submit(save_result, job.folder, job.config, job.masks.first, step, result)
    job.done += 1


def _first(job: Job, stream: Iterator[Step]) -> Step:
    step = next(stream)
    if step.given is None:
        raise InputError(f"{job.masks.path}: no object can be seen in the first frame")
    return step


def _next(job: Job, stream: Iterator[Step]) -> Step | None:
    """Return the next frame, or None at the end or if it is damaged."""
    if job.problem is not None:
        return None
    try:
        return next(stream, None)
    except InputError as error:
        job.problem = error
        return None
