r"""Propagate the first masks of a data set with three methods that need no training.

  s3 baselines --data_dir=DAVIS --output=baselines
  s3 score --results=baselines/first_mask,baselines/optical_flow,\
baselines/nearest_neighbours --annotations=DAVIS/Annotations/480p --output=scores

--data_dir has the folders of DAVIS: JPEGImages/480p/<video> and Annotations/480p/<video>. The
methods start from the first annotation of each video.

Results in --output, one palette or grey PNG per frame, like the annotations:
  first_mask/<video>/          the first mask, copied
  optical_flow/<video>/        the soft mask, warped from frame to frame by DIS optical flow
  nearest_neighbours/<video>/  labels of the 7 most similar positions in the first and last 4
                               frames, by the ImageNet features of an EfficientNet-Lite0 at
                               stride 16, taken from --checkpoint if training left it unchanged
"""

from collections.abc import Callable
from pathlib import Path

from absl import flags
from tqdm import tqdm

from s3_jax.benchmarks.baselines import Baseline, copy_first_mask, warp_by_optical_flow
from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.benchmarks.layouts.davis import list_davis_videos
from s3_jax.benchmarks.layouts.video import FolderVideo
from s3_jax.benchmarks.scoring import looks_binary
from s3_jax.cli import command
from s3_jax.cli.logs import quiet_logging
from s3_jax.config import CompactConfig
from s3_jax.errors import InputError
from s3_jax.media.background import prefetch
from s3_jax.media.writers import write_mask

DATA_DIR = flags.DEFINE_string("data_dir", None, "Data set in the layout of DAVIS. Required.")
OUTPUT = flags.DEFINE_string("output", None, "Directory for the results. Required.")
SEQUENCES = flags.DEFINE_string("sequences", None, "Text file with names of videos. Default: all.")
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "s3_lite",
    "Checkpoint directory or name of a network with an EfficientNet-Lite0. To make one from public "
    "weights, use s3 convert --model=s3_lite --efficientnet=FILE.",
)
METHODS = flags.DEFINE_multi_enum(
    "method",
    ["first_mask", "optical_flow", "nearest_neighbours"],
    ["first_mask", "optical_flow", "nearest_neighbours"],
    "Method to run; repeat the flag for several. Default: all.",
)


def main() -> None:
    quiet_logging()
    videos = _list_videos(Path(_required("data_dir", DATA_DIR.value)))
    output = Path(_required("output", OUTPUT.value))
    for method in METHODS.value:
        if (output / method).exists():
            raise InputError(f"{output / method} exists: choose another --output")
    for method in METHODS.value:
        baseline = _MAKERS[method]()
        for video in tqdm(videos, desc=method, mininterval=5):
            _run(baseline, video, output / method / video.name)
    results = ",".join(str(output / method) for method in METHODS.value)
    print(
        command.as_typed(
            f"to score: s3 score --results={results} "
            f"--annotations={videos[0].masks.parent} --output=DIR"
        )
    )


def _run(baseline: Baseline, video: FolderVideo, folder: Path) -> None:
    """Write a video's masks to a folder that appears when they are complete."""
    source = video.open_frames()
    first = video.open_masks(source.frame_names).first
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    images = (frame.image for frame in prefetch(source.frames()))
    names = source.frame_names or []
    for name, ids in zip(names, baseline(images, first.ids), strict=True):
        write_mask(unfinished / f"{name}.png", ids, first.encoding)
    unfinished.rename(folder)


def _list_videos(data_dir: Path) -> list[FolderVideo]:
    sequences = Path(SEQUENCES.value).resolve() if SEQUENCES.value else None
    layout = LayoutConfig(sequences=sequences)
    videos = list_davis_videos(data_dir, layout)
    one_object = looks_binary(video.masks for video in videos)
    return list_davis_videos(data_dir, layout, one_object=True) if one_object else videos


def _nearest_neighbours() -> Baseline:
    # Imported late: loading JAX takes seconds, and flag errors and other methods do not need it.
    from s3_jax.benchmarks.label_propagation import nearest_neighbours
    from s3_jax.checkpoints.model import load_model
    from s3_jax.cli.compilation import prepare_compilation

    prepare_compilation()
    config, variables = load_model(CHECKPOINT.value)
    if not isinstance(config.encoder_settings, CompactConfig):
        raise InputError(
            f"--checkpoint={CHECKPOINT.value} has the image encoder {config.encoder}, not an "
            "EfficientNet-Lite0: give an s3_lite checkpoint"
        )
    collections = ("params", "batch_stats")
    return nearest_neighbours({c: variables[c]["image_encoder"]["backbone"] for c in collections})


_MAKERS: dict[str, Callable[[], Baseline]] = {
    "first_mask": lambda: copy_first_mask,
    "optical_flow": lambda: warp_by_optical_flow,
    "nearest_neighbours": _nearest_neighbours,
}


def _required(name: str, value: str | None) -> str:
    if not value:
        raise InputError(f"--{name} is missing; --help shows how the command is used")
    return value
