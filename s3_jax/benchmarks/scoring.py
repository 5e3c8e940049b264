"""Scoring of result folders against annotations, by sequence and frame.

Sequences are streamed: a worker has one frame of the annotation and of each result in memory.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2
import numpy as np
from absl import logging
from jaxtyping import Integer

from s3_jax.benchmarks.metrics import FrameScores, clear_void, score_frame
from s3_jax.benchmarks.protocols import Protocol, SequenceMeta
from s3_jax.benchmarks.score_folders import (
    MASK_SUFFIX,
    frame_names,
    missing_frames,
    other_numbering,
)
from s3_jax.benchmarks.timetable import Timetable
from s3_jax.errors import InputError
from s3_jax.media.image_files import shortened
from s3_jax.media.mask_files import Mask, MaskEncoding, read_mask
from s3_jax.media.palette import voc_palette

Labels = Integer[np.ndarray, "h w"]
MOST_PROBLEMS = 20
MISSING_HINT = (
    "add what is missing, choose sequences with --sequences=FILE, or pass --allow_missing to "
    "score missing masks as empty"
)


@dataclasses.dataclass(frozen=True)
class SequenceTask:
    """One sequence to be scored for r result folders.

    roots: the result folders.
    results: the sequence's folder in every result, or None if a result lacks it.
    meta: the sequence's objects in the meta file, if there is one.
    allow_unknown_ids: treat ids that are not annotated anywhere as background.
    """

    name: str
    annotations: Path
    roots: tuple[Path, ...]
    results: tuple[Path | None, ...]
    protocol: Protocol
    meta: SequenceMeta | None = None
    allow_unknown_ids: bool = False


@dataclasses.dataclass
class ObjectScores:
    """J (`region`) and F (`boundary`) of an object on each of its scored frames."""

    object_id: int
    frames: list[str] = dataclasses.field(default_factory=list)
    region: list[float] = dataclasses.field(default_factory=list)
    boundary: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class SequenceScores:
    """Scores of a sequence in one result, with objects in ascending order of their ids.

    missing: scored frames for which the result has no mask; they are scored as empty.
    unscored: annotated objects that the protocol leaves out.
    """

    name: str
    objects: list[ObjectScores]
    missing: list[str]
    unscored: list[int]


def refuse_missing(tasks: Sequence[SequenceTask]) -> None:
    """Check that all files to be scored exist, without reading any mask.

    Raises:
      InputError: sequences or frames are missing in annotations or results; the message lists them,
        one sequence and result per line.
    """
    problems, incomplete = [], False
    for task in tasks:
        try:
            _, missing = _prepare(task)
        except InputError as error:
            problems.append(str(error))
            continue
        for root, folder, absent in zip(task.roots, task.results, missing, strict=True):
            incomplete = incomplete or bool(absent)
            numbering = "" if folder is None else other_numbering(folder, task.annotations)
            if folder is None:
                problems.append(f"{root} has no sequence {task.name}")
            elif absent:
                cause = f"; {numbering}" if numbering else ""
                problems.append(f"{folder} lacks {len(absent)} masks: {shortened(absent)}{cause}")
            elif numbering:
                problems.append(f"{folder}: {numbering}")
    if problems:
        hint = [MISSING_HINT] if incomplete else []
        raise InputError("\n".join([*_first(problems), *hint]))


def score_sequence(task: SequenceTask) -> list[SequenceScores]:
    """Return the scores of a sequence, one entry for each result.

    Masks that a result lacks count as empty; call `refuse_missing` first to refuse them.

    Raises:
      InputError: there is nothing to score, or a mask is damaged, differs from the annotation in
        size, or has ids that are not annotated.
    """
    try:
        timetable, missing = _prepare(task)
        return _score_frames(task, timetable, missing)
    except OSError as error:
        raise InputError(f"{task.name}: cannot read its folders: {error}") from error


def score_all(
    tasks: Sequence[SequenceTask], workers: int, progress: Callable[[], object]
) -> list[list[SequenceScores]]:
    """Run `score_sequence` for all tasks in `workers` processes, and return the results in order.

    Args:
      progress: called whenever a sequence is done.

    Raises:
      InputError: sequences cannot be scored; the message has one line for each.
    """
    outcomes: dict[int, list[SequenceScores]] = {}
    problems: dict[int, str] = {}
    for index, outcome in _outcomes(tasks, workers):
        if isinstance(outcome, str):
            problems[index] = outcome
        else:
            outcomes[index] = outcome
        progress()
    if problems:
        raise InputError("\n".join(_first([problems[index] for index in sorted(problems)])))
    return [outcomes[index] for index in range(len(tasks))]


def looks_binary(folders: Iterable[Path]) -> bool:
    """Return True if the first annotations have only 0 and 255: one object, black and white."""
    values: set[int] = set()
    for folder in folders:
        first = read_mask(folder / f"{frame_names(folder)[0]}{MASK_SUFFIX}")
        values.update(first.object_ids)
        if values - {255}:
            return False
    return bool(values)


def read_labels(
    path: Path,
    protocol: Protocol,
    encoding: MaskEncoding | None = None,
    annotation: Integer[np.ndarray, "h2 w2"] | None = None,
) -> tuple[Labels, MaskEncoding]:
    """Read the object ids of a mask file; binary protocols get 0 and 1.

    Args:
      encoding: the encoding of an earlier mask of the folder (see `read_mask`).
      annotation: for the mask of a result, the annotation to compare it with.
    """
    mask = read_mask(path, encoding=encoding)
    if annotation is not None:
        mask = _as_indices(mask, {int(i) for i in np.unique(annotation)})
    if protocol.binary:
        return (mask.ids != 0).astype(np.uint8), mask.encoding
    if mask.encoding.largest_id <= np.iinfo(np.uint8).max:
        return mask.ids.astype(np.uint8), mask.encoding
    return mask.ids, mask.encoding


def _as_indices(mask: Mask, annotated: set[int]) -> Mask:
    """Convert a mask saved in palette colours back to palette indices; return others unchanged."""
    if mask.encoding.kind != "rgb" or set(mask.object_ids) <= annotated:
        return mask
    if any(i not in _VOC_IDS for i in mask.object_ids):
        return mask
    ids = np.zeros_like(mask.ids)
    for colour in mask.object_ids:
        ids[mask.ids == colour] = _VOC_IDS[colour]
    logging.log_first_n(
        logging.WARNING,
        "%s holds palette colours instead of ids; each colour is read as its index in the palette",
        1,
        mask.path,
    )
    return dataclasses.replace(mask, ids=ids, encoding=MaskEncoding("palette"))


# Colour as the id of an RGB mask -> index in the palette of PASCAL VOC and DAVIS.
_VOC_IDS = {
    int(red) + 256 * int(green) + 65536 * int(blue): index
    for index, (red, green, blue) in enumerate(voc_palette())
    if index
}


def _outcomes(
    tasks: Sequence[SequenceTask], workers: int
) -> Iterator[tuple[int, list[SequenceScores] | str]]:
    """Yield the index of each task with its scores or its problem, in order of completion."""
    if workers <= 1 or len(tasks) <= 1:
        yield from ((index, _attempt(task)) for index, task in enumerate(tasks))
        return
    # Spawn fresh processes: a fork would inherit the threads of the caller's libraries.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        min(workers, len(tasks)), mp_context=context, initializer=_start_worker
    ) as pool:
        futures = {pool.submit(_attempt, task): index for index, task in enumerate(tasks)}
        try:
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise InputError(
                "a scoring process was killed, possibly because memory ran out: "
                "run again with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _first(problems: list[str]) -> list[str]:
    more = len(problems) - MOST_PROBLEMS
    return [*problems[:MOST_PROBLEMS], *([f"... and {more} more"] if more > 0 else [])]


def _start_worker() -> None:
    """Limit the process to one core, and leave interrupts to its parent."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _attempt(task: SequenceTask) -> list[SequenceScores] | str:
    try:
        return score_sequence(task)
    except InputError as error:
        return str(error)


def _prepare(task: SequenceTask) -> tuple[Timetable, list[list[str]]]:
    """Return the timetable, and the frames that each result lacks."""
    frames = frame_names(task.annotations)
    try:
        timetable = Timetable(task.protocol, frames, task.meta)
    except InputError as error:
        raise InputError(f"{task.annotations}: {error}") from error
    needed = timetable.needed()
    if not needed:
        raise InputError(
            f"{task.annotations} has annotations on the first frame only, like a test set: "
            f"there is nothing to score ({len(frames)} frames, {task.protocol.rules})"
        )
    missing = [missing_frames(folder, needed) for folder in task.results]
    return timetable, missing


def _score_frames(
    task: SequenceTask, timetable: Timetable, missing: Sequence[Sequence[str]]
) -> list[SequenceScores]:
    tally = _Tally(task)
    annotation_reader = _Reader(task.annotations, task.protocol)
    result_readers = [_Reader(folder, task.protocol) for folder in task.results]
    for index, frame in enumerate(timetable.frames):
        annotation = annotation_reader.read(frame)
        ids = timetable.scored(index)
        predictions = [
            reader.read(frame, annotation) if ids and frame not in absent else _empty(annotation)
            for reader, absent in zip(result_readers, missing, strict=True)
        ]
        void = task.protocol.void if annotation.dtype == np.uint8 else None
        if void is not None:
            annotation, predictions = clear_void(annotation, predictions, void)
        scores = score_frame(annotation, predictions, ids)
        tally.add(frame, ids, scores)
        timetable.observe(index, tally.note_ids(frame, annotation, predictions, scores, ids))
    return tally.finish(missing)


class _Reader:
    """Reader of a folder's masks, all in the encoding of the first colour mask."""

    def __init__(self, folder: Path | None, protocol: Protocol):
        self._folder = folder
        self._protocol = protocol
        self._encoding: MaskEncoding | None = None

    def read(self, frame: str, annotation: Integer[np.ndarray, "h2 w2"] | None = None) -> Labels:
        """Read the mask of a frame, which must have the size of its annotation if one is given."""
        assert self._folder is not None
        path = self._folder / f"{frame}{MASK_SUFFIX}"
        labels, encoding = read_labels(path, self._protocol, self._encoding, annotation)
        if encoding.kind == "rgb":
            self._encoding = encoding
        if annotation is not None and labels.shape != annotation.shape:
            raise InputError(
                f"{path} is {_size(labels)}, but its annotation is {_size(annotation)}: save "
                "results at the size of the annotations"
            )
        return labels


class _Tally:
    """Scores of every object in every result so far, and the ids encountered."""

    def __init__(self, task: SequenceTask):
        self._task = task
        self._objects: list[dict[int, ObjectScores]] = [{} for _ in task.results]
        self._annotated: set[int] = set(task.meta or ())
        self._predicted: list[dict[int, str]] = [{} for _ in task.results]

    def add(self, frame: str, ids: Sequence[int], scores: FrameScores) -> None:
        """Record the scores of some objects in a frame, for every result."""
        for objects, region, boundary in zip(
            self._objects, scores.region, scores.boundary, strict=True
        ):
            for object_id, j, f in zip(ids, region.tolist(), boundary.tolist(), strict=True):
                entry = objects.setdefault(object_id, ObjectScores(object_id))
                entry.frames.append(frame)
                entry.region.append(j)
                entry.boundary.append(f)

    def note_ids(
        self,
        frame: str,
        annotation: Labels,
        predictions: Sequence[Labels],
        scores: FrameScores,
        ids: Sequence[int],
    ) -> set[int]:
        """Record the ids of a frame, and return those that are annotated in it but not scored."""
        annotated = _other_ids(annotation, int(scores.annotation_areas.sum()), ids)
        self._annotated |= annotated.union(ids)
        for seen, prediction, areas in zip(
            self._predicted, predictions, scores.prediction_areas, strict=True
        ):
            for object_id in _other_ids(prediction, int(areas.sum()), ids):
                seen.setdefault(object_id, frame)
        return annotated

    def finish(self, missing: Sequence[Sequence[str]]) -> list[SequenceScores]:
        """Return the scores of the sequence for every result."""
        self._refuse_unknown_ids()
        scored = sorted(self._objects[0])
        if not scored:
            raise InputError(f"{self._task.annotations}: {self._nothing_to_score()}")
        unscored = sorted(self._annotated.difference(scored))
        return [
            SequenceScores(self._task.name, [objects[i] for i in scored], list(absent), unscored)
            for objects, absent in zip(self._objects, missing, strict=True)
        ]

    def _nothing_to_score(self) -> str:
        if self._task.protocol.objects == "first_frame":
            return (
                "the first annotation has no object; in black and white masks (0 and 255), "
                "255 is an object only with --protocol=davis2016 or --protocol=binary"
            )
        return (
            "no object is annotated after its first frame; these look like the masks given to "
            "the method, and there is nothing to score"
        )

    def _refuse_unknown_ids(self) -> None:
        if self._task.allow_unknown_ids:
            return
        for folder, seen in zip(self._task.results, self._predicted, strict=True):
            unknown = sorted(set(seen) - self._annotated)
            if unknown:
                ids = shortened([str(i) for i in unknown])
                raise InputError(
                    f"{folder}/{seen[unknown[0]]}{MASK_SUFFIX} has object {ids}, but only "
                    f"{shortened([str(i) for i in sorted(self._annotated)])} are annotated: keep "
                    "the ids of the given masks, or pass --allow_unknown_ids to ignore others"
                )


def _other_ids(labels: Labels, known_area: int, known: Sequence[int]) -> set[int]:
    """Return the ids other than known ones; they are searched only if the areas do not add up."""
    if np.count_nonzero(labels) == known_area:
        return set()
    return {int(i) for i in np.unique(labels) if i} - set(known)


def _empty(annotation: Labels) -> Labels:
    return np.zeros(annotation.shape, np.uint8)


def _size(labels: Labels) -> str:
    height, width = labels.shape
    return f"{width} x {height}"
