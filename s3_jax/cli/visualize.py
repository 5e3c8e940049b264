r"""Draw pictures of segmented videos.

  s3 visualize --what=sheet,overlay --run=results/davis --output=pictures
  s3 visualize --what=sheet --video=cats.mp4 --masks=results/cats/masks --output=DIR

--what is one or more of:
  sheet    evenly spaced frames with their objects and ids: <video>_sheet.jpg
  overlay  all frames as a video: <video>_overlay.mp4
  heat     the probability of every object over the frames: <video>_heat_<id>.jpg
           (needs results made with --save_scores)
  queries  the network's attention, shown as the pixel that every object query and head picks in
           each block of the object transformer: <video>_queries_<id>.jpg (runs the network again)

The input is either a run of s3 predict (--run; --names selects some of its videos), or one video
with its masks. For --what=queries without --run, pass the given masks as --masks; the first mask of
each object is used.

Examples:
  # Results of s3 segment.
  s3 visualize --what=overlay,heat --video=cats.mp4 --masks=results/cats/masks \
      --scores=results/cats/scores --output=pictures
  # Where the queries look, in three frames.
  s3 visualize --what=queries --frames=3 --video=JPEGImages/bear \
      --masks=Annotations/bear/00000.png --checkpoint=checkpoints/s3 --size=480 --output=pictures
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path

from absl import flags, logging

from s3_jax.benchmarks.datasets import BENCHMARKS
from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.benchmarks.layouts.video import BenchmarkVideo
from s3_jax.cli.logs import quiet_logging
from s3_jax.config import from_dict
from s3_jax.errors import InputError
from s3_jax.media.image_files import shortened
from s3_jax.media.mask_files import MaskFiles
from s3_jax.media.video_files import VideoSource, open_video
from s3_jax.segmentation.run_record import read_run_records
from s3_jax.segmentation.video import MaskSource
from s3_jax.segmentation.visualization import (
    SheetConfig,
    write_heat_maps,
    write_overlay,
    write_query_choices,
    write_sheet,
)

PICTURES = ("sheet", "overlay", "heat", "queries")

WHAT = flags.DEFINE_list("what", ["sheet"], f"Pictures to draw: {', '.join(PICTURES)}.")
RUN = flags.DEFINE_string("run", None, "Output directory of s3 predict.")
NAMES = flags.DEFINE_list("names", [], "Videos of the run, separated by commas. Default: all.")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Directory of the run's data set, if it has moved since the run."
)
VIDEO = flags.DEFINE_string("video", None, "Video file or directory of images, without --run.")
MASKS = flags.DEFINE_string(
    "masks", None, "Masks of --video: a directory, or an image for queries."
)
SCORES = flags.DEFINE_string("scores", None, "Probabilities of --video: a directory of .npz files.")
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Network for --what=queries. Default: the run's network."
)
SIZE = flags.DEFINE_integer(
    "size", None, "Short side of the frames that the network sees. Default: as in the run, or 480."
)
FRAMES = flags.DEFINE_integer("frames", 12, "Frames on a sheet.", lower_bound=1)
COLUMNS = flags.DEFINE_integer("columns", 4, "Frames side by side.", lower_bound=1)
WIDTH = flags.DEFINE_integer("width", 320, "Width of a frame on a sheet in pixels.", 32)
FPS = flags.DEFINE_float("fps", 24.0, "Frames per second if the video has no frame rate.", 0.01)
OUTPUT = flags.DEFINE_string("output", None, "Directory for the pictures. Required.")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A video to be drawn: access to its frames, results, probabilities and given masks."""

    name: str
    open_frames: Callable[[], VideoSource]
    masks: Path
    scores: Path | None
    open_given: Callable[[VideoSource], MaskSource]
    checkpoint: str | None
    short_side: int


def main() -> None:
    quiet_logging()
    unknown = [what for what in WHAT.value if what not in PICTURES]
    if unknown or not WHAT.value:
        raise InputError(f"--what is {','.join(WHAT.value)}, but may be {', '.join(PICTURES)}")
    if not OUTPUT.value:
        raise InputError("--output is missing")
    if bool(RUN.value) == bool(VIDEO.value):
        raise InputError("give either --run, or --video with its --masks (see --help)")
    subjects = _subjects_of_run(Path(RUN.value)) if RUN.value else [_single_subject()]
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    for subject in subjects:
        for what in WHAT.value:
            for path in _draw(what, subject, output):
                print(path)


def _draw(what: str, subject: Subject, output: Path) -> Iterable[Path]:
    """Write one kind of picture and return its paths."""
    source = subject.open_frames()
    stem = output / f"{subject.name.replace('/', '_')}_{what}"
    config = SheetConfig(FRAMES.value, COLUMNS.value, WIDTH.value)
    match what:
        case "sheet":
            path = stem.with_name(f"{stem.name}.jpg")
            write_sheet(path, source, subject.masks, config)
            return [path]
        case "overlay":
            rate = source.frame_rate or Fraction(FPS.value)
            path = stem.with_name(f"{stem.name}.mp4")
            write_overlay(path, source, subject.masks, rate)
            return [path]
        case "heat":
            if subject.scores is None:
                raise InputError("--what=heat needs --scores, the probabilities of --save_scores")
            return write_heat_maps(stem, source, subject.scores, config)
        case _:
            return _draw_queries(stem, source, subject, config)


def _draw_queries(
    stem: Path, source: VideoSource, subject: Subject, config: SheetConfig
) -> Iterable[Path]:
    from s3_jax.checkpoints.model import load_model
    from s3_jax.cli.compilation import prepare_compilation
    from s3_jax.config import PropagationConfig
    from s3_jax.segmentation.query_attention import WatchedSession

    if not subject.checkpoint:
        raise InputError("--what=queries needs --checkpoint")
    given = subject.open_given(source)
    prepare_compilation()
    model, variables = load_model(subject.checkpoint)
    propagation = PropagationConfig.suiting(model).at_most(subject.short_side)
    session = WatchedSession(model, variables, propagation)
    return write_query_choices(stem, session, source, given, subject.short_side, config)


def _single_subject() -> Subject:
    if not MASKS.value:
        raise InputError("--masks is missing: give the masks of --video")
    video, masks = Path(VIDEO.value or ""), Path(MASKS.value)
    return Subject(
        name=video.stem if video.is_file() else video.name,
        open_frames=functools.partial(open_video, video),
        masks=masks,
        scores=Path(SCORES.value) if SCORES.value else None,
        open_given=lambda source: MaskFiles(masks, source.frame_names),
        checkpoint=CHECKPOINT.value,
        short_side=480 if SIZE.value is None else SIZE.value,
    )


def _subjects_of_run(run: Path) -> Sequence[Subject]:
    records = read_run_records(run)
    if not records or records[0]["settings"].get("dataset") not in BENCHMARKS:
        raise InputError(f"--run: {run} has no run.json of s3 predict")
    record = records[0]
    settings = record["settings"]
    data_dir = Path(DATA_DIR.value or record["data_dir"])
    layout = from_dict(LayoutConfig, record["layout"])
    videos = BENCHMARKS[settings["dataset"]].list_videos(data_dir, layout)
    unknown = sorted(set(NAMES.value) - {video.name for video in videos})
    if unknown:
        raise InputError(f"--names: the run has no {shortened(unknown)}")
    size = settings.get("size", -1) if SIZE.value is None else SIZE.value
    checkpoint = CHECKPOINT.value or record.get("checkpoint")
    subjects = [
        _subject_of_run(run, video, size, checkpoint)
        for video in videos
        if not NAMES.value or video.name in NAMES.value
    ]
    done = [subject for subject in subjects if subject.masks.is_dir()]
    if len(done) < len(subjects):
        logging.warning("%d videos of the run have no results yet", len(subjects) - len(done))
    return done


def _subject_of_run(
    run: Path, video: BenchmarkVideo, short_side: int, checkpoint: str | None
) -> Subject:
    return Subject(
        name=video.name,
        open_frames=video.open_frames,
        masks=run / "Annotations" / video.name,
        scores=run / "scores" / video.name,
        open_given=lambda source: video.open_masks(source.frame_names),
        checkpoint=checkpoint,
        short_side=short_side,
    )
