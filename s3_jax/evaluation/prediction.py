"""Running a benchmark: its videos one after another, on every device at once, to be continued.

`PredictionFolder` is the output directory, `share_out` tells what one of several hosts does, and
`predict` works through it. A video is segmented as `segmentation.segment` does it; a run that was
ended at any moment goes on where its videos stopped, with equal results.
"""

import dataclasses
import functools
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from s3_jax.errors import InputError
from s3_jax.evaluation.layouts.video import BenchmarkVideo
from s3_jax.evaluation.run_folder import RECORD, Identity, RunFolder
from s3_jax.evaluation.segmentation import (
    Progress,
    Segmenter,
    SegmentOptions,
    segment,
)

WARM_AFTER = 5  # frames of a video before its speed counts as that of compiled programs


class ResettableSegmenter(Segmenter, Protocol):
    """A session that can be used for one video after another."""

    def reset(self) -> None: ...


# A device, as a context that gives a function that makes a session to be used within it.
Workplace = Callable[[], AbstractContextManager[Callable[[], ResettableSegmenter]]]


class PredictionFolder:
    """The output directory of a run over many videos.

    Annotations/<video>/<frame>.png   results
    scores/<video>/<frame>.npz        probabilities, if asked for
    progress/<video>/                 what was done, and the session of unfinished videos

    identity: everything but the video that decides the results.
    """

    def __init__(self, path: Path, identity: Identity, overwrite: bool = False):
        self.path = path
        self.masks = path / "Annotations"
        self.scores = path / "scores"
        self._identity = identity
        self._overwrite = overwrite

    def open_video(self, video: BenchmarkVideo) -> RunFolder:
        """The part for one video.

        Raises:
          InputError: it holds results with other settings, or of something else.
        """
        return RunFolder(
            self._progress(video),
            {"video": video.fingerprint(), **self._identity},
            overwrite=self._overwrite,
            masks=self.masks / video.name,
            scores=self.scores / video.name,
        )

    def record(self, video: BenchmarkVideo) -> dict[str, Any] | None:
        """What is known of a finished video; None for others."""
        try:
            values = json.loads((self._progress(video) / RECORD).read_text())
        except (FileNotFoundError, ValueError):
            return None
        return values if values.get("finished") else None

    def _progress(self, video: BenchmarkVideo) -> Path:
        return self.path / "progress" / video.name


def share_out(videos: Sequence[BenchmarkVideo], index: int, count: int) -> list[BenchmarkVideo]:
    """The videos of share `index` of `count`, which all have about as many frames."""
    totals = [0] * count
    mine: set[str] = set()
    for video in sorted(videos, key=lambda v: (-v.num_frames, v.name)):
        share = totals.index(min(totals))
        totals[share] += video.num_frames
        if share == index:
            mine.add(video.name)
    return [video for video in videos if video.name in mine]


@dataclasses.dataclass
class Outcome:
    """What a run did: names of the videos finished by now, and what was wrong with others."""

    finished: list[str] = dataclasses.field(default_factory=list)
    problems: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RunProgress:
    """What `predict` tells its caller, from several threads, and asks it.

    found: called with the frames of a video that earlier runs did.
    advanced: called after every frame. stop: whether to end after this frame.
    """

    found: Callable[[int], None] = lambda frames: None
    advanced: Callable[[], None] = lambda: None
    stop: Callable[[], bool] = lambda: False


def predict(
    videos: Sequence[BenchmarkVideo],
    folder: PredictionFolder,
    options: SegmentOptions,
    workplaces: Sequence[Workplace],
    progress: RunProgress = RunProgress(),
) -> Outcome:
    """Segments all videos that are not finished, the longest first, one at each workplace.

    What is wrong with a video is told in the outcome, and does not keep others from being done.

    Raises:
      OSError: a result could not be written; everything stops, and earlier results stay.
    """
    outcome, failed = Outcome(), threading.Event()
    waiting = deque(sorted(videos, key=lambda v: (-v.num_frames, v.name)))
    asked = progress.stop
    progress = dataclasses.replace(progress, stop=lambda: asked() or failed.is_set())

    def work(workplace: Workplace) -> None:
        try:
            with workplace() as make_session:
                session = functools.cache(make_session)  # not needed where all is finished
                for video in _taken(waiting):
                    if progress.stop():
                        break
                    _attempt(session, video, folder, options, progress, outcome)
        except BaseException:
            failed.set()
            raise

    if len(workplaces) == 1:
        work(workplaces[0])
        return outcome
    with ThreadPoolExecutor(len(workplaces), thread_name_prefix="predict") as pool:
        for future in [pool.submit(work, workplace) for workplace in workplaces]:
            future.result()
    return outcome


def _taken(waiting: deque[BenchmarkVideo]) -> Iterator[BenchmarkVideo]:
    """Takes videos out of a queue that others take from too."""
    while True:
        try:
            yield waiting.popleft()
        except IndexError:
            return


def _attempt(
    session: Callable[[], ResettableSegmenter],
    video: BenchmarkVideo,
    folder: PredictionFolder,
    options: SegmentOptions,
    progress: RunProgress,
    outcome: Outcome,
) -> None:
    try:
        if _predict_video(session, video, folder.open_video(video), options, progress):
            outcome.finished.append(video.name)
    except InputError as error:
        outcome.problems[video.name] = str(error)


def _predict_video(
    session: Callable[[], ResettableSegmenter],
    video: BenchmarkVideo,
    folder: RunFolder,
    options: SegmentOptions,
    progress: RunProgress,
) -> bool:
    """Whether the video is finished; errors as InputError."""
    done = folder.finished_frames
    if done is not None:
        progress.found(done)
        return True
    source = video.open_frames()
    masks = video.open_masks(source.frame_names)
    session().reset()
    clock = _Clock(progress)
    options = dataclasses.replace(options, saved=video.saved, all_masks=video.all_masks)
    done, problem = segment(
        session(), source, masks, folder, options,
        Progress(progress.found, clock.frame_done, progress.stop), save_at_end=False,
    )  # fmt: skip
    if problem is not None:
        raise problem
    if progress.stop() and done != len(source.frame_names or ()):
        return False
    results = done if video.saved is None else len(video.saved)
    folder.finish(done, results, clock.notes() | {"size": list(source.size)})
    return True


class _Clock:
    """How long the frames of a video took, from the first on and once everything is compiled."""

    def __init__(self, progress: RunProgress):
        self._progress = progress
        self._begin = time.monotonic()
        self._warm = self._now = self._begin
        self._frames = 0

    def frame_done(self) -> None:
        self._now = time.monotonic()
        self._frames += 1
        if self._frames == WARM_AFTER:
            self._warm = self._now
        self._progress.advanced()

    def notes(self) -> dict[str, Any]:
        warm = max(self._frames - WARM_AFTER, 0)
        return {
            "frames_timed": self._frames,
            "seconds": round(self._now - self._begin, 3),
            "warm_frames": warm,
            "warm_seconds": round(self._now - self._warm, 3) if warm else 0.0,
        }
