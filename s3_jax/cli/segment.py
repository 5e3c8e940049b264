r"""Segment a video, given masks of the objects in its first frame.

  s3 segment --video=cats.mp4 --masks=cats_first.png \
      --checkpoint=checkpoints/s3_vitb_depthanything --output=results/cats

--video is any video file that FFmpeg decodes, or a directory of images, in natural order of their
names.

--masks is an image of the frames' size in which every pixel holds the id of its object, 0 for
background. It can be a palette PNG (DAVIS, YouTube-VOS), a grey image, or a colour image
(id = R + 256 G + 65536 B). It can also be a directory with masks of several frames. Name each mask
like its frame (00012.png for 00012.jpg), or by the frame's index from 0 if --video is a file.

If you have no mask, mark the objects in the first frame (pixels from the left and the top):
  --points=210,140:1           a point on object 1
  --negative_points=90,60:1    a point that is not on object 1
  --box=100,80,300,220:2       a box around object 2: left, top, right, bottom
The resulting mask is first_mask.png in --output; first_mask_overlay.png shows it over the frame. If
the mask is wrong, add points and run again with --overwrite. The checkpoint must have a prompt
head, as s3_lite does.

Files in --output:
  masks/<frame>.png    the masks, with the ids, palette, size and encoding of the masks you gave
  overlay.mp4          the masks over the video
  scores/<frame>.npz   with --save_scores: prob (objects + 1, height, width), float32, background
                       first; ids: the object of each further channel
  run.json             settings and fingerprints of the inputs

If a run is interrupted (Ctrl-C, a crash, a full disk), give the same command again. It resumes,
with the same results as an uninterrupted run.

More examples:
  # No mask: two points on a cat, a box around another one, and a point that is on neither.
  s3 segment --video=cats.mp4 --points=210,140,250,190:1 --box=400,80,560,300:2 \
      --negative_points=430,290:2 --checkpoint=s3_lite --output=results/cats
  # Frames in a directory; objects that appear later have their first mask on a later frame.
  s3 segment --video=JPEGImages/bear --masks=Annotations/bear ... --size=480
  # An hour of video in bounded memory.
  s3 segment --video=hour.mkv --masks=first.png ... --long_term
  # Corrections: use every mask in the directory, not only the first of each object.
  s3 segment --video=cats.mp4 --masks=corrected/ ... --all_masks
  # Masks on any frames, not only the first: segment in both directions.
  s3 segment --video=cats.mp4 --masks=some_frames/ ... --all_masks --both_directions
  # Several videos, spread over the devices of this machine, to results/cats and results/dogs.
  s3 segment --video=cats.mp4 --masks=cats.png --video=dogs.mp4 --masks=dogs.png ... \
      --output=results
  # Less memory: half precision (on TPU and GPU), two objects at a time, smaller frames.
  s3 segment ... --dtype=bfloat16 --chunk_size=2 --size=360
"""

import contextlib
import dataclasses
import queue
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from s3_jax.cli import command, mask_flags, prompt_flags, propagation_flags
from s3_jax.cli.interruption import interruption
from s3_jax.cli.logs import quiet_logging
from s3_jax.cli.propagation_flags import (
    CHECKPOINT,
    DTYPE,
    define_propagation_flags,
    propagation_config,
)
from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError, reason
from s3_jax.media.mask_files import MaskConfig, MaskFiles
from s3_jax.media.timeline import ranges
from s3_jax.media.video_files import VideoSource, open_video
from s3_jax.segmentation.both_directions import (
    GivenMasks,
    Rewindable,
    fill_backwards,
    masks_used,
)
from s3_jax.segmentation.run_folder import Identity, RunFolder, fingerprint, named_fingerprint
from s3_jax.segmentation.video import (
    Progress,
    SegmentConfig,
    check_mask_size,
    render_overlay,
    segment,
)

VIDEO = flags.DEFINE_multi_string(
    "video",
    None,
    "Video file or directory of images. Required. May be given several times, each with its "
    "--masks, for several videos.",
)
MASKS = flags.DEFINE_multi_string(
    "masks",
    None,
    "Mask image for the first frame, or directory of masks. Required, unless you mark the objects "
    "with --points or --box.",
)
OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Directory for the results; with several videos, each has a subdirectory. Required.",
)
OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Start over: clear the results of an earlier run in --output first."
)
SIZE = flags.DEFINE_integer(
    "size",
    -1,
    "Shrink frames to this short side in pixels before anything else, with antialiasing, as the "
    "benchmarks do (DAVIS: 480); -1 keeps their size. Results have the original size. "
    "--max_internal_size applies afterwards.",
)
ALL_MASKS = flags.DEFINE_bool(
    "all_masks",
    False,
    "Use every mask in --masks, so that later masks correct the result. By default only the first "
    "mask of each object is used.",
)
BOTH_DIRECTIONS = flags.DEFINE_bool(
    "both_directions",
    False,
    "Segment backwards as well. A mask on a later frame also fills the frames before it, and "
    "frames between two masks combine both sides. Frames before the last mask take twice the time.",
)
VOID = flags.DEFINE_integer(
    "void",
    -1,
    "Id in --masks that marks pixels to ignore (often 255 in palette masks). They count as "
    "background. -1: every id is an object.",
)
FIRST_NUMBER = flags.DEFINE_integer(
    "first_number",
    0,
    "Number that stands for the first frame of a video file in the names of --masks. Pass 1 if the "
    "masks are numbered from 1.",
    lower_bound=0,
)
SAVE_SCORES = flags.DEFINE_bool(
    "save_scores", False, "Also write probabilities, scores/<frame>.npz (large)."
)
STRICT = flags.DEFINE_bool(
    "strict",
    None,
    "Stop at the first frame that cannot be decoded. With --nostrict, skip it: the other frames "
    "keep their numbers, and the command ends with an error that lists the missing ones. Default: "
    "stop for a directory of images, which can be repaired; skip for a video file.",
)
OVERLAY = flags.DEFINE_bool("overlay", True, "Write overlay.mp4.")
FPS = flags.DEFINE_float(
    "fps", 24.0, "Frames per second of overlay.mp4 if --video has no frame rate.", lower_bound=0.01
)

_PROPAGATION_FLAGS = define_propagation_flags()
flags.adopt_module_key_flags(propagation_flags)
flags.adopt_module_key_flags(mask_flags)
flags.adopt_module_key_flags(prompt_flags)


@dataclasses.dataclass(frozen=True)
class Task:
    """A video, the path of its masks if there are any, and the directory of its results."""

    video: Path
    masks: str | None
    output: Path


Watch = Callable[[], AbstractContextManager[list[int]]]  # a list that interruptions fill


def main() -> int:
    quiet_logging()
    videos, masks = VIDEO.value or [], MASKS.value or []
    _required("video", videos[0] if videos else None)
    output = Path(_required("output", OUTPUT.value))
    if len(videos) == 1 and len(masks) < 2:
        return _attempt(Task(Path(videos[0]), masks[0] if masks else None, output), interruption)
    return _segment_all(_tasks(videos, masks, output))


def _tasks(videos: Sequence[str], masks: Sequence[str], output: Path) -> list[Task]:
    """Pair videos and masks, in the order in which they are given.

    Raises:
      InputError: their numbers differ, or two videos have the same name.
    """
    if prompt_flags.given() or len(videos) != len(masks):
        raise InputError(
            f"{len(videos)} --video and {len(masks)} --masks: several videos need masks each, "
            "given in the same order"
        )
    names = [Path(video).stem for video in videos]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"--video: two are named {twice[0]} and would share {output / twice[0]}")
    pairs = zip(videos, masks, names, strict=True)
    return [Task(Path(video), given, output / name) for video, given, name in pairs]


def _segment_all(tasks: Sequence[Task]) -> int:
    """Segment several videos, one at a time on every local device; return the exit code."""
    import jax

    devices: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for device in jax.local_devices():
        devices.put(device)

    def work(task: Task) -> int:
        if interrupted:
            return _interrupted(f"before {task.video}")
        device = devices.get()
        try:
            with jax.default_device(device):
                return _attempt(task, lambda: contextlib.nullcontext(interrupted))
        except InputError as error:
            return command.fail(str(error))
        finally:
            devices.put(device)

    with interruption() as interrupted, ThreadPoolExecutor(devices.qsize()) as pool:
        codes = list(tqdm(pool.map(work, tasks), "segment", len(tasks), unit=" videos"))
    print(f"{codes.count(0)} of {len(tasks)} videos are done")
    return max(codes)


def _attempt(task: Task, watch: Watch) -> int:
    """Segment a video, report an error in one line, and return the exit code."""
    try:
        return _segment_video(task, watch)
    except KeyboardInterrupt:
        return command.fail("interrupted; the same command continues from there", 130)
    except OSError as error:
        place = error.filename or task.output
        return command.fail(
            f"cannot use {place}: {reason(error)}; finished frames are kept, and the same command "
            "continues from there"
        )
    except Exception as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return command.fail(
            "out of memory: try a smaller --size, --chunk_size=1, fewer --max_mem_frames or "
            "--dtype=bfloat16, with another --output"
        )


def _segment_video(task: Task, watch: Watch) -> int:
    """Check everything that can be checked quickly, then load the model and segment."""
    begin = time.monotonic()
    video, output = task.video, task.output
    strict = video.is_dir() if STRICT.value is None else STRICT.value
    source = open_video(video, keep_going=not strict)
    masks = None if prompt_flags.given() else _open_masks(source, _required("masks", task.masks))
    checkpoint = _find_checkpoint(_required("checkpoint", CHECKPOINT.value))
    config = propagation_config(_PROPAGATION_FLAGS, checkpoint)
    _refuse_among(output, [video, *([masks.path] if masks else [])])
    masks = masks or _open_masks(source, _first_mask(source, checkpoint, task))
    folder = RunFolder(
        output,
        _identity(config, source, masks, checkpoint),
        inputs=[source.path, masks.path, checkpoint],
        overwrite=OVERWRITE.value,
    )
    done = folder.finished_frames
    if done is not None:
        print(f"{folder.path} is finished: {done} frames")
        if OVERLAY.value and not folder.overlay.exists():
            _overlay(source, masks, folder, done)
        return _report_lost(source, folder, folder.notes.get("lost_frames", []))
    session = _load_session(checkpoint, config.at_most(SIZE.value))
    return _run(session, source, masks, folder, begin, watch)


def _run(
    session: Rewindable,
    source: VideoSource,
    masks: MaskFiles,
    folder: RunFolder,
    begin: float,
    watch: Watch,
) -> int:
    """Segment, draw and report, and return the exit code."""
    config = SegmentConfig(
        SIZE.value, ALL_MASKS.value, SAVE_SCORES.value, empty_clears=ALL_MASKS.value
    )
    given = masks_used(masks, config) if BOTH_DIRECTIONS.value else None
    if given is not None:
        config = dataclasses.replace(config, keep_before=given.last)
        given.reserve(session, forwards=True)
    pace = _Pace(begin)
    with watch() as interrupted, _bar(source, "segment") as bar:

        def resume_at(frames: int) -> None:
            bar.reset(source.num_frames)
            bar.initial = bar.n = frames

        def advanced() -> None:
            bar.update()

        stop = lambda: bool(interrupted)  # noqa: E731
        progress = Progress(resume_at, advanced, stop, pace.frame_done)
        done, problem = segment(session, source, masks, folder, config, progress)
    if interrupted:
        return _interrupted(f"after {done} frames")
    beyond = masks.beyond(done)
    if problem is None and beyond:
        problem = InputError(
            f"{masks.path}: {beyond[0]} is for a frame beyond the end of {source.path}, which has "
            f"{done} frames: remove or rename it"
        )
    back = given if problem is None else None
    if back is not None and not _fill(session, source, masks, folder, config, back, watch):
        return _interrupted("in the backward pass")
    if OVERLAY.value and done:
        _overlay(source, masks, folder, done)
    if problem is not None:
        return command.fail(f"{problem} (the {done} frames before it are in {folder.path})")
    lost = list(source.lost)
    folder.finish(done, done - len(lost), {"lost_frames": lost} if lost else None)
    height, width = source.size
    print(
        f"{folder.path}: {done} frames of {width}x{height}, {pace.frames} of them now, "
        f"{pace.words()}, objects {list(session.object_ids)}"
    )
    return _report_lost(source, folder, lost)


def _interrupted(where: str) -> int:
    return command.fail(f"interrupted {where}; the same command continues from there", 130)


def _fill(
    session: Rewindable,
    source: VideoSource,
    masks: MaskFiles,
    folder: RunFolder,
    config: SegmentConfig,
    given: GivenMasks,
    watch: Watch,
) -> bool:
    """Segment backwards from the last mask, and return True unless interrupted."""
    with watch() as interrupted, _bar(source, "backwards") as bar:

        def resume_at(frames: int) -> None:
            bar.reset(given.last + 1)
            bar.initial = bar.n = frames

        def advanced() -> None:
            bar.update()

        progress = Progress(resume_at, advanced, lambda: bool(interrupted))
        return fill_backwards(session, source, masks, folder, config, given, progress)


def _report_lost(source: VideoSource, folder: RunFolder, lost: Sequence[int]) -> int:
    """Report the frames without a result, and return the exit code."""
    if not lost:
        return 0
    return command.fail(
        f"{source.path} is damaged: {len(lost)} frames cannot be decoded and have no mask in "
        f"{folder.masks}: {ranges(lost)}; repair it (for example by re-encoding it), or pass "
        "--strict to stop at the first"
    )


class _Pace:
    """Speed in frames per second, without the frames that wait for loading and compilation.

    A frame counts when its results have been written, not while a device still computes it.

    begin: time at which the command started, by `time.monotonic`.
    """

    SLOW = 2  # the frame whose mask is given, and the first one that is segmented

    def __init__(self, begin: float):
        self._begin = begin
        self._done: list[float] = []

    @property
    def frames(self) -> int:
        return len(self._done)

    def frame_done(self) -> None:
        self._done.append(time.monotonic())

    def words(self) -> str:
        done = sorted(self._done)
        if len(done) <= self.SLOW:
            last = done[-1] if done else self._begin + 1e-9
            return f"{len(done) / max(last - self._begin, 1e-9):.2f} frames/s"
        ready = done[self.SLOW - 1]
        rate = (len(done) - self.SLOW) / max(done[-1] - ready, 1e-9)
        wait = ready - self._begin
        return f"the first {self.SLOW} after {wait:.1f} s, then {rate:.2f} frames/s"


def _overlay(source: VideoSource, masks: MaskFiles, folder: RunFolder, frames: int) -> None:
    rate = source.frame_rate or Fraction(FPS.value)
    with _bar(source, "overlay") as bar:
        render_overlay(source, folder, masks.first.encoding, frames, rate, bar.update)


def _first_mask(source: VideoSource, checkpoint: Path, task: Task) -> Path:
    """Make the first mask from clicks and boxes."""
    if task.masks:
        raise InputError("give --masks, or --points and --box, but not both")
    first = next(source.frames(), None)
    if first is None or first.index > 0:
        raise InputError(f"{source.path}: the first frame, on which the points lie, is damaged")
    return prompt_flags.make_first_mask(first.image, checkpoint, task.output, OVERWRITE.value)


def _open_masks(source: VideoSource, path: str | Path) -> MaskFiles:
    if VOID.value < -1 or VOID.value == 0:
        raise InputError(f"--void is {VOID.value}, but must be a positive id, or -1 for none")
    void = None if VOID.value == -1 else VOID.value
    said = MaskConfig(**mask_flags.said())
    masks = MaskFiles(
        Path(path), source.frame_names, void, said, FIRST_NUMBER.value, BOTH_DIRECTIONS.value
    )
    check_mask_size(masks.first, source)
    print(masks.describe())
    if SIZE.value != -1 and SIZE.value < 32:
        raise InputError(f"--size is {SIZE.value}, but must be at least 32, or -1 to keep the size")
    return masks


def _refuse_among(output: Path, inputs: Sequence[Path]) -> None:
    """Raise an InputError if results would be written among the files that this command reads."""
    for path in inputs:
        if path.is_dir() and output.resolve().is_relative_to(path.resolve()):
            raise InputError(
                f"--output={output} is within {path}, which this command reads: choose another "
                "--output"
            )


def _identity(
    config: PropagationConfig, source: VideoSource, masks: MaskFiles, checkpoint: Path
) -> Identity:
    """Return everything that determines the results.

    For a directory of frames, only the names and the first frame count, so a damaged frame can be
    repaired and the run resumed.
    """
    mask_files = list(masks.files.values())
    return {
        "video": _named(source.path, fingerprint(source.frame_names or (), source.files[:1])),
        "masks": _named(masks.path, fingerprint((f.name for f in mask_files), mask_files)),
        "checkpoint": named_fingerprint(checkpoint),
        "size": SIZE.value,
        "dtype": DTYPE.value,
        "all_masks": ALL_MASKS.value,
        "void": VOID.value,
        **mask_flags.said(),
        "first_number": FIRST_NUMBER.value,
        "save_scores": SAVE_SCORES.value,
        **({"both_directions": True} if BOTH_DIRECTIONS.value else {}),
        **dataclasses.asdict(config),
    }


def _named(path: Path, digest: str) -> str:
    return f"{path.resolve().name} {digest}"


def _find_checkpoint(path_or_name: str) -> Path:
    # Imported late, here and below: loading JAX takes seconds, and flag errors do not need it.
    from s3_jax.checkpoints.model import find_model

    return find_model(path_or_name)


def _load_session(checkpoint: Path, config: PropagationConfig) -> Rewindable:
    import jax.numpy as jnp

    from s3_jax.checkpoints.model import load_model
    from s3_jax.cli.compilation import prepare_compilation
    from s3_jax.propagation.session import Session

    prepare_compilation()
    model_config, variables = load_model(checkpoint)
    return Session(model_config, variables, config, dtype=jnp.dtype(DTYPE.value))


def _bar(source: VideoSource, what: str) -> tqdm:
    """Return a progress bar for a video's frames, which is hidden if there are several videos."""
    return tqdm(
        disable=len(VIDEO.value or []) > 1,
        desc=what,
        total=source.num_frames,
        mininterval=0.2 if sys.stderr.isatty() else 10,
        dynamic_ncols=True,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} "
        "[{elapsed}<{remaining}, {rate_noinv_fmt}]",
        unit=" frames",
    )


def _required(name: str, value: str | None) -> str:
    if not value:
        raise InputError(f"--{name} is missing; --help shows how the command is used")
    return value
