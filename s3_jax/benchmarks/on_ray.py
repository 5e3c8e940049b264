"""Benchmarks on a Ray cluster, with one actor per device that segments groups of videos.

    with cluster.connected(address) as ray:
        outcome = predict_on_cluster(groups, job, workers, reached)

An actor keeps its network and its compiled programs from one video to the next. The longest videos
go first, each to any idle actor. If an actor is lost (because a machine is taken away or a process
is killed), another one continues its videos from the results on the shared disk and writes the same
bytes. The lost actor restarts when the cluster has room for it.
"""

import collections
import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from absl import logging

from s3_jax.benchmarks.layouts.video import BenchmarkVideo
from s3_jax.benchmarks.prediction import (
    GroupWorker,
    MakeBatch,
    Outcome,
    PredictionFolder,
    RunProgress,
    Workplace,
)
from s3_jax.errors import InputError
from s3_jax.segmentation.run_folder import Identity
from s3_jax.segmentation.video import SegmentConfig

TRIES = 5  # number of lost actors after which the group's own videos are assumed to be the cause
POLL = 0.5  # seconds between polls of the progress
Group = Sequence[BenchmarkVideo]


@dataclasses.dataclass(frozen=True)
class ClusterJob:
    """Settings that every actor needs; they are pickled and sent to it.

    device: returns the record of an actor's device for `run.json`, and the device as a workplace.
    """

    output: Path
    identity: Identity
    config: SegmentConfig
    device: Callable[[], tuple[list[dict[str, Any]], Workplace]]
    make_batch: MakeBatch | None = None


@dataclasses.dataclass
class GroupResult:
    """Result of a group: names of finished videos, problems by name, and number of frames."""

    finished: list[str]
    problems: dict[str, str]
    frames: int


class VideoActor:
    """Actor on one device of the cluster; `do` and `frames` run in two of its threads."""

    def __init__(self, job: ClusterJob):
        self._job = job
        self._frames = 0

    def ready(self) -> list[dict[str, Any]]:
        """Acquire the device for the lifetime of the actor, and return its description."""
        described, workplace = self._job.device()
        folder = PredictionFolder(self._job.output, self._job.identity)
        progress = RunProgress(self._add, lambda: self._add(1))
        self._place = contextlib.ExitStack()
        self._worker = GroupWorker(
            self._place.enter_context(workplace()),
            self._job.make_batch, folder, self._job.config, progress, Outcome(),
        )  # fmt: skip
        return [device | {"process": os.getpid()} for device in described]

    def frames(self) -> int:
        """Return the number of frames of the current group that are done."""
        return self._frames

    def do(self, group: Group) -> GroupResult:
        """Segment the videos of a group, continuing from earlier attempts."""
        self._frames = 0
        self._worker.outcome = outcome = Outcome()
        self._worker.do(group)
        return GroupResult(outcome.finished, outcome.problems, self._frames)

    def _add(self, frames: int) -> None:
        self._frames += frames


def predict_on_cluster(
    groups: Sequence[Group],
    job: ClusterJob,
    options: Sequence[dict[str, Any]],
    reached: Callable[[int], None] = lambda frames: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[list[dict[str, Any]], Outcome]:
    """Segment all groups on the connected cluster; return the devices and the outcome.

    Args:
      options: Ray's options, one mapping per actor.
      reached: called with the total number of frames done.
      stop: returns True to end early; a later run continues unfinished videos.

    Raises:
      OSError: a result could not be written.
      InputError: no actor can be used.
    """
    run = _Run(groups, reached)
    run.hire(job, options)
    while run.unfinished and not stop():
        run.wait()
    return run.devices, run.outcome


class _Run:
    """State of a run: the assignments of actors, and the remaining groups.

    An actor is either coming (asked to report when it is ready), busy, or idle.
    """

    def __init__(self, groups: Sequence[Group], reached: Callable[[int], None]):
        self._reached = reached
        self._waiting = collections.deque(
            sorted(groups, key=lambda g: (-sum(v.num_frames for v in g), g[0].name))
        )
        self._coming: dict[Any, Any] = {}
        self._busy: dict[Any, tuple[Any, Group]] = {}
        self._idle: list[Any] = []
        self._lost: collections.Counter[str] = collections.Counter()
        self._frames = 0
        self.devices: list[dict[str, Any]] = []
        self.outcome = Outcome()

    @property
    def unfinished(self) -> bool:
        """True while videos are waiting or being predicted."""
        return bool(self._waiting or self._busy)

    def hire(self, job: ClusterJob, options: Sequence[dict[str, Any]]) -> None:
        """Request actors from the cluster."""
        actor = ray.remote(VideoActor)
        lives = {"max_restarts": -1, "max_concurrency": 2}
        for chosen in options:
            self._await(actor.options(**lives, **chosen).remote(job))

    def wait(self) -> None:
        """Assign groups to idle actors, and handle events until the next poll."""
        while self._waiting and self._idle:
            actor, group = self._idle.pop(), self._waiting.popleft()
            self._busy[actor.do.remote(group)] = actor, group
        if not (self._coming or self._busy):
            raise InputError("--ray: no usable worker; see the warnings above")
        done, _ = ray.wait([*self._coming, *self._busy], timeout=POLL)
        for reference in done:
            handle = self._greet if reference in self._coming else self._finish
            handle(reference)
        self._reached(self._frames + sum(self._running()))

    def _await(self, actor: Any) -> None:
        """Ask an actor to report when it is ready, which is when the cluster has room for it."""
        self._coming[actor.ready.options(max_task_retries=-1).remote()] = actor

    def _greet(self, reference: Any) -> None:
        actor = self._coming.pop(reference)
        try:
            self.devices += ray.get(reference)
        except ray.exceptions.RayError as error:
            logging.warning("a worker failed to start: %s", _in_a_line(error))
        else:
            self._idle.append(actor)

    def _finish(self, reference: Any) -> None:
        actor, group = self._busy.pop(reference)
        try:
            result: GroupResult = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            self._try_again(group, error)
            self._await(actor)
            return
        self.outcome.finished += result.finished
        self.outcome.problems |= result.problems
        self._frames += result.frames
        self._idle.append(actor)

    def _try_again(self, group: Group, error: Exception) -> None:
        name, why = group[0].name, _in_a_line(error)
        self._lost[name] += 1
        if self._lost[name] < TRIES:
            logging.warning("%s: its worker was lost, another goes on with it (%s)", name, why)
            self._waiting.appendleft(group)
            return
        problem = f"{TRIES} workers were lost while segmenting it; the last error: {why}"
        self.outcome.problems |= {video.name: problem for video in group}

    def _running(self) -> Iterator[int]:
        """Yield the number of frames done in each group in progress whose actor answers."""
        asked = [actor.frames.remote() for actor, _ in self._busy.values()]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=POLL) if asked else ([], [])
        for reference in answered:
            with contextlib.suppress(ray.exceptions.RayError):  # reported with its group
                yield ray.get(reference)


def _in_a_line(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
