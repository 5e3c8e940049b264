"""Validation during training: scores of a network on annotated videos, without result files.

The scores equal those of `s3 segment` followed by `s3 score`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from s3_jax.benchmarks.metrics import clear_void, score_frame
from s3_jax.benchmarks.protocols import Protocol
from s3_jax.benchmarks.score_folders import MASK_SUFFIX, frame_names
from s3_jax.benchmarks.scoring import Labels, ObjectScores, SequenceScores, read_labels
from s3_jax.benchmarks.summary import RunSummary, summarize_run
from s3_jax.benchmarks.timetable import Timetable
from s3_jax.data.folders import EvaluationVideo
from s3_jax.errors import InputError
from s3_jax.media.image_files import list_images, read_image
from s3_jax.media.mask_files import MaskEncoding
from s3_jax.media.resize import shrink_ids, shrink_image, shrunk_size
from s3_jax.segmentation.video import Segmenter, at_size


@dataclasses.dataclass(frozen=True)
class ValidationRules:
    """Rules for the frames that are segmented and scored.

    short_side: frames are shrunk to this short side in pixels; -1 keeps their size. Scores are
      computed at the original size.
    max_frames: number of frames to use of each video, from the first; 0 for all.
    """

    protocol: Protocol
    short_side: int = 480
    max_frames: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class _Frame:
    image: np.ndarray
    name: str
    labels: Labels | None
    last: bool


# The scores of some videos, or the problem of one of them.
Part = list[SequenceScores] | str


def validate(
    new_session: Callable[[], Segmenter],
    videos: Sequence[EvaluationVideo],
    rules: ValidationRules,
    advanced: Callable[[], object] = lambda: None,
    share: tuple[int, int] = (0, 1),
    gather: Callable[[Part], Sequence[Part]] = lambda part: [part],
) -> RunSummary:
    """Segment and score all videos.

    Args:
      new_session: makes a session, one for each video.
      advanced: called after every video.
      share: (i, n) for the i-th of n processes, each of which validates every n-th video.
      gather: returns the results of all processes, given those of this one.

    Raises:
      InputError: in any process, a video cannot be read or has nothing to score.
    """
    index, count = share
    scored: list[SequenceScores] = []
    mine: Part = scored
    try:
        for video in videos[index::count]:
            scored.append(score_video(new_session(), video, rules))
            advanced()
    except InputError as error:
        mine = str(error)
    scores: dict[str, SequenceScores] = {}
    for part in gather(mine):
        if isinstance(part, str):
            raise InputError(part)
        scores |= {one.name: one for one in part}
    in_order = [scores[video.name] for video in videos]
    return summarize_run("validation", "", in_order, {one.name: {} for one in in_order})


def score_video(
    session: Segmenter, video: EvaluationVideo, rules: ValidationRules
) -> SequenceScores:
    """Segment a video from its first masks, and score every frame that the protocol scores.

    Raises:
      InputError: the video cannot be read, or has nothing to score.
    """
    frames = list(_image_names(video, rules))
    annotated = [name for name in frame_names(video.annotations) if name in set(frames)]
    timetable = Timetable(rules.protocol, annotated, None)
    objects: dict[int, ObjectScores] = {}
    number = {name: index for index, name in enumerate(annotated)}
    for frame in _frames(video, frames, number, rules):
        given = None if frame.labels is None else _given(frame, session, number, rules)
        prediction = _advance(session, frame, given, rules)
        if frame.labels is not None:
            index = number[frame.name]
            _add_scores(objects, frame, prediction, timetable.scored(index), rules.protocol)
            timetable.observe(index, {int(i) for i in np.unique(frame.labels)} - _not_ids(rules))
    if not objects:
        raise InputError(
            f"{video.annotations}: nothing to score in {len(annotated)} annotated frames of the "
            f"first {len(frames)} ({rules.protocol.rules}); masks that hold only 0 and 255 need a "
            "single-object protocol, for example binary"
        )
    return SequenceScores(video.name, [objects[i] for i in sorted(objects)], [], [])


def _image_names(video: EvaluationVideo, rules: ValidationRules) -> list[str]:
    names = [path.stem for path in list_images(video.images)]
    return names[: rules.max_frames] if rules.max_frames else names


def _frames(
    video: EvaluationVideo, names: list[str], annotated: dict[str, int], rules: ValidationRules
) -> Iterator[_Frame]:
    files = {path.stem: path for path in list_images(video.images)}
    encoding: MaskEncoding | None = None
    for name in names:
        labels = None
        if name in annotated:
            path = video.annotations / f"{name}{MASK_SUFFIX}"
            labels, encoding = read_labels(path, rules.protocol, encoding)
        image = read_image(files[name])
        _check_size(path if name in annotated else Path(), labels, image)
        yield _Frame(image, name, labels, name == names[-1])


def _check_size(path: Path, labels: Labels | None, image: np.ndarray) -> None:
    if labels is not None and labels.shape != image.shape[:2]:
        raise InputError(
            f"{path} is {labels.shape[1]}x{labels.shape[0]} but its frame is "
            f"{image.shape[1]}x{image.shape[0]}: masks and frames must have the same size"
        )


def _not_ids(rules: ValidationRules) -> set[int]:
    void = rules.protocol.void
    return {0} if void is None else {0, void}


def _given(
    frame: _Frame, session: Segmenter, annotated: dict[str, int], rules: ValidationRules
) -> Labels | None:
    """Return the mask of the objects that a frame introduces, or None if there are none."""
    if rules.protocol.objects == "first_frame" and annotated[frame.name] > 0:
        return None
    assert frame.labels is not None
    known = (*_not_ids(rules), *session.object_ids)
    new = np.where(np.isin(frame.labels, known), 0, frame.labels)
    return new if new.any() else None


def _advance(
    session: Segmenter, frame: _Frame, given: Labels | None, rules: ValidationRules
) -> Labels:
    """Return the ids predicted for a frame, at its own size."""
    size = shrunk_size(frame.image.shape[:2], rules.short_side)
    small = None if given is None else shrink_ids(given, size)
    if small is not None and small.any():
        session.add(small)
    elif not session.object_ids:
        return np.zeros(frame.image.shape[:2], np.int32)
    result = session.step(shrink_image(frame.image, size), end=frame.last)
    return at_size(result, frame.image.shape[:2])[0]


def _add_scores(
    objects: dict[int, ObjectScores],
    frame: _Frame,
    prediction: Labels,
    ids: Sequence[int],
    protocol: Protocol,
) -> None:
    if not ids or frame.labels is None:
        return
    annotation, predictions = frame.labels, [prediction.astype(frame.labels.dtype)]
    if protocol.void is not None:
        annotation, predictions = clear_void(annotation, predictions, protocol.void)
    scores = score_frame(annotation, predictions, ids)
    for column, object_id in enumerate(ids):
        entry = objects.setdefault(object_id, ObjectScores(object_id))
        entry.frames.append(frame.name)
        entry.region.append(float(scores.region[0, column]))
        entry.boundary.append(float(scores.boundary[0, column]))
