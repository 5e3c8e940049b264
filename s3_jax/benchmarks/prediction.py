"""Resumable benchmark runs over all videos, on all devices at once.

`PredictionFolder` is the output directory, `share_out` selects the videos of one of several hosts,
and `predict` segments them, each with `segmentation.video.segment`. A run can be stopped at any
time. It resumes where its videos stopped, with the same results.
"""

import dataclasses
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from absl import logging

from s3_jax.benchmarks.layouts.video import BenchmarkVideo
from s3_jax.errors import InputError
from s3_jax.media.output_paths import inside
from s3_jax.media.run_json import NAME, differences, read_record
from s3_jax.media.video_files import VideoSource
from s3_jax.segmentation.lockstep import Batch, Job, segment_together
from s3_jax.segmentation.run_folder import Identity, RunFolder
from s3_jax.segmentation.video import (
    Progress,
    SegmentConfig,
    Segmenter,
    segment,
)

WARM_AFTER = 5  # frames of a video to skip when measuring the speed of compiled programs


@runtime_checkable
class ResettableSegmenter(Segmenter, Protocol):
    """A session that can be used for one video after another."""

    def reset(self) -> None:
        """Forget the current video, so that another one can begin."""
        ...


MakeBatch = Callable[[Sequence[ResettableSegmenter]], Batch]
# A device: a context manager that yields a function to make sessions on it.
Workplace = Callable[[], AbstractContextManager[Callable[[], ResettableSegmenter]]]


class PredictionFolder:
    """The output directory of a run over many videos.

    Annotations/<video>/<frame>.png   results
    scores/<video>/<frame>.npz        probabilities, if requested
    progress/<video>/                 record, and saved sessions of unfinished videos

    identity: everything that determines the results, except the video.
    """

    def __init__(self, path: Path, identity: Identity, overwrite: bool = False):
        self.path = path
        self.masks = path / "Annotations"
        self.scores = path / "scores"
        self.identity = identity
        self._overwrite = overwrite

    def open_video(self, video: BenchmarkVideo) -> RunFolder:
        """Open the run folder of one video.

        Raises:
          InputError: it has results from other settings or from another kind of run.
        """
        return RunFolder(
            self._progress(video),
            {"video": video.fingerprint(), **self.identity},
            overwrite=self._overwrite,
            masks=inside(self.masks, video.name, "the list of videos"),
            scores=inside(self.scores, video.name, "the list of videos"),
        )

    def record(self, video: BenchmarkVideo) -> dict[str, Any] | None:
        """Return the record of a video if it was finished with the same settings, else None."""
        try:
            record = read_record(self._progress(video) / NAME)
        except (FileNotFoundError, ValueError):
            return None
        settings = {name: v for name, v in record["settings"].items() if name != "video"}
        same = not differences(settings, self.identity)
        return record if same and record["finished"] else None

    def _progress(self, video: BenchmarkVideo) -> Path:
        return inside(self.path / "progress", video.name, "the list of videos")


def share_out(videos: Sequence[BenchmarkVideo], index: int, count: int) -> list[BenchmarkVideo]:
    """Return the videos of share `index` of `count`; shares have about equal numbers of frames."""
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
    """Result of a run: names of the finished videos, and the problems of the others."""

    finished: list[str] = dataclasses.field(default_factory=list)
    problems: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class RunProgress:
    """Callbacks of `predict`, called from several threads.

    found: called with the number of frames of a video that earlier runs finished.
    advanced: called after every frame.
    stop: returns True to end after this frame.
    """

    found: Callable[[int], None] = lambda frames: None
    advanced: Callable[[], None] = lambda: None
    stop: Callable[[], bool] = lambda: False


def group_videos(videos: Sequence[BenchmarkVideo], most: int) -> list[list[BenchmarkVideo]]:
    """Group videos of the same frame size and similar length into batches of up to `most`.

    A video that may have masks on later frames, or cannot be opened, gets a group of its own.
    """
    alone, sized = [], []
    for video in videos:
        size = _frame_size(video) if most > 1 and video.first_frame_only else None
        if size is None:
            alone.append([video])
        else:
            sized.append((size, video.num_frames, video))
    groups: list[list[BenchmarkVideo]] = []
    sizes = sorted({size for size, _, _ in sized})
    for size in sizes:
        same = sorted((n, v.name, v) for s, n, v in sized if s == size)
        groups += [[v for _, _, v in same[i : i + most]] for i in range(0, len(same), most)]
    return alone + groups


def predict(
    groups: Sequence[Sequence[BenchmarkVideo]],
    folder: PredictionFolder,
    config: SegmentConfig,
    workplaces: Sequence[Workplace],
    progress: RunProgress = RunProgress(),
    make_batch: MakeBatch | None = None,
) -> Outcome:
    """Segment all unfinished videos, the longest first, one group at a time per workplace.

    Problems of a video are recorded in the outcome and do not affect other videos.

    Args:
      groups: groups of videos that are segmented together (see `group_videos`).
      make_batch: required for groups of more than one video.

    Raises:
      OSError: a result could not be written; everything stops, and earlier results are kept.
    """
    outcome, failed = Outcome(), threading.Event()
    waiting = deque(sorted(groups, key=lambda g: (-sum(v.num_frames for v in g), g[0].name)))
    asked = progress.stop
    progress = dataclasses.replace(progress, stop=lambda: asked() or failed.is_set())

    def work(workplace: Workplace) -> None:
        """Segment groups of videos at one workplace until none is left."""
        try:
            with workplace() as make_session:
                worker = GroupWorker(make_session, make_batch, folder, config, progress, outcome)
                for group in _taken(waiting):
                    if progress.stop():
                        break
                    worker.do(group)
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


def _taken(waiting: deque[Sequence[BenchmarkVideo]]) -> Iterator[Sequence[BenchmarkVideo]]:
    """Take groups from a queue that is shared with other threads."""
    while True:
        try:
            yield waiting.popleft()
        except IndexError:
            return


class GroupWorker:
    """Worker that segments one group of videos after another, creating sessions on demand.

    outcome: finished videos and problems, to which the worker adds.
    """

    def __init__(
        self,
        make_session: Callable[[], ResettableSegmenter],
        make_batch: MakeBatch | None,
        folder: PredictionFolder,
        config: SegmentConfig,
        progress: RunProgress,
        outcome: Outcome,
    ):
        self._make_session, self._make_batch = make_session, make_batch
        self._folder, self._config = folder, config
        self._progress, self.outcome = progress, outcome
        self._sessions: list[ResettableSegmenter] = []

    def do(self, group: Sequence[BenchmarkVideo]) -> None:
        """Segment the videos of a group, and record finished ones and problems in the outcome."""
        runs: list[tuple[BenchmarkVideo, RunFolder]] = []
        for video in group:
            try:
                runs.append((video, self._folder.open_video(video)))
            except InputError as error:
                self.outcome.problems[video.name] = str(error)
        if len(group) == 1 or len(runs) < len(group) or not self._do_together(runs):
            for video, folder in runs:
                self._note(video, functools.partial(self._do_alone, video, folder))

    def _note(self, video: BenchmarkVideo, attempt: Callable[[], bool]) -> None:
        try:
            if attempt():
                self.outcome.finished.append(video.name)
        except InputError as error:
            self.outcome.problems[video.name] = str(error)

    def _ready_sessions(self, count: int) -> list[ResettableSegmenter]:
        while len(self._sessions) < count:
            self._sessions.append(self._make_session())
        for session in self._sessions[:count]:
            session.reset()
        return self._sessions[:count]

    def _do_alone(self, video: BenchmarkVideo, folder: RunFolder) -> bool:
        """Segment one video; return True if it is finished.

        Raises:
          InputError: the video or its masks cannot be used.
        """
        progress, done = self._progress, folder.finished_frames
        if done is not None:
            progress.found(done)
            return True
        source = video.open_frames()
        masks = video.open_masks(source.frame_names)
        (session,) = self._ready_sessions(1)
        clock = _Clock(progress)
        done, problem = segment(
            session, source, masks, folder, self._config_for(video),
            Progress(progress.found, progress.advanced, progress.stop, clock.frame_written),
            save_at_end=False,
        )  # fmt: skip
        if problem is not None:
            raise problem
        if progress.stop() and done != len(source.frame_names or ()):
            return False
        _finish(folder, video, source, done, clock.notes())
        return True

    def _do_together(self, runs: Sequence[tuple[BenchmarkVideo, RunFolder]]) -> bool:
        """Segment the videos as a batch; return False if this failed or was unnecessary."""
        finished = [folder.finished_frames for _, folder in runs]
        # If one video is unfinished, its whole batch is repeated, so that its bytes stay the same.
        if None not in finished or self._make_batch is None:
            return False
        try:
            jobs = [self._job(video, folder) for video, folder in runs]
            clock = _Clock(self._progress, len(jobs))
            batch = self._make_batch(self._ready_sessions(len(jobs)))
            complete = segment_together(batch, jobs, clock.frame_done, self._progress.stop)
        except InputError as error:
            logging.warning("%s; segmenting the videos of its batch one by one", error)
            return False
        for (video, folder), job, done in zip(runs, jobs, finished, strict=True):
            if job.problem is not None:
                self.outcome.problems[video.name] = str(job.problem)
            elif complete:
                if done is None:
                    _finish(folder, video, job.source, job.done, clock.notes())
                self.outcome.finished.append(video.name)
        return True

    def _job(self, video: BenchmarkVideo, folder: RunFolder) -> Job:
        source = video.open_frames()
        masks = video.open_masks(source.frame_names)
        unfinished = folder.finished_frames is None
        return Job(source, masks, folder if unfinished else None, self._config_for(video))

    def _config_for(self, video: BenchmarkVideo) -> SegmentConfig:
        return dataclasses.replace(self._config, saved=video.saved, all_masks=video.all_masks)


def _finish(
    folder: RunFolder, video: BenchmarkVideo, source: VideoSource, done: int, notes: dict[str, Any]
) -> None:
    results = done if video.saved is None else len(video.saved)
    folder.finish(done, results, notes | {"size": list(source.size)})


class _Clock:
    """Clock for videos segmented together, with the total time and the time after compilation."""

    def __init__(self, progress: RunProgress, videos: int = 1):
        self._progress = progress
        self._videos = videos
        self._begin = time.monotonic()
        self._warm = self._now = self._begin
        self._frames = 0

    def frame_done(self) -> None:
        """Count a frame that was predicted and written, and report progress."""
        self.frame_written()
        self._progress.advanced()

    def frame_written(self) -> None:
        """Count a frame, and note the time."""
        self._now = time.monotonic()
        self._frames += 1
        if self._frames == WARM_AFTER * self._videos:
            self._warm = self._now

    def notes(self) -> dict[str, Any]:
        """Return the measurements per video."""
        warm = max(self._frames - WARM_AFTER * self._videos, 0)
        warm_seconds = self._now - self._warm if warm else 0.0
        return {
            "frames_timed": round(self._frames / self._videos, 3),
            "seconds": round((self._now - self._begin) / self._videos, 3),
            "warm_frames": round(warm / self._videos, 3),
            "warm_seconds": round(warm_seconds / self._videos, 3),
        }


def _frame_size(video: BenchmarkVideo) -> tuple[int, int] | None:
    try:
        return video.open_frames().size
    except InputError:
        return None  # the error is reported when the video is segmented
