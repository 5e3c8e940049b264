r"""Time the preparation of training clips on one core, stage by stage.

  s3 bench data --layout=videos --input=DIR --clips=30
  s3 bench data --layout=images --input=DIR --stage=pretraining

Times are CPU times, so other programs do not count. The output has:
  - milliseconds per clip for each stage
  - clips per second and core
  - the ratio to a baseline that decodes whole videos before it samples frames
  - with --step_seconds=S (the time of a training step of --batch_size clips), the number of cores
    that keep an accelerator busy

Layouts: videos, images and regions are folders; records is a prepared data set; synthetic needs no
--input. See s3_jax/data/config.py.
"""

import cProfile
import dataclasses
import pstats
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from absl import flags

from s3_jax.data import config as data_config
from s3_jax.data import recipes
from s3_jax.data.config import DataConfig, SourceConfig
from s3_jax.data.mixture import Mixture
from s3_jax.data.sources import open_source
from s3_jax.errors import InputError

LAYOUT = flags.DEFINE_enum(
    "layout", "synthetic", list(data_config.SOURCE_KINDS), "Layout of the data."
)
INPUT = flags.DEFINE_string("input", "", "Directory of the data set.")
BINARY = flags.DEFINE_bool(
    "binary", False, "For videos: treat everything except background as one object."
)
STAGE = flags.DEFINE_enum(
    "stage", "main", ["pretraining", "main"], "Stage, which sets crop, frames and augmentation."
)
CLIPS = flags.DEFINE_integer("clips", 20, "Clips to time.", lower_bound=1)
BASELINE_VIDEOS = flags.DEFINE_integer(
    "baseline_videos", 3, "Videos that the baseline decodes.", lower_bound=1
)
STEP_SECONDS = flags.DEFINE_float("step_seconds", 0.0, "Time of a training step in seconds.", 0.0)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Clips per training step.", lower_bound=1)

# Stages, and the functions that belong to them (with everything that these call).
STAGES = {
    "decode images": ("decode_image",),
    "decode masks": ("decode_ids", "decode_foreground"),
    "render scenes": ("sample_scene", "render"),
    "warp": ("warp_image", "warp_labels"),
    "colour": ("recolour",),
    "merge": ("paste", "limit"),
}


def main() -> None:
    if not INPUT.value and LAYOUT.value != "synthetic":
        raise InputError(f"--layout={LAYOUT.value} needs --input=DIRECTORY")
    config = _config()
    _report(config, _time_clips(config), _time_whole_videos(config.sources[0]))


def _config() -> DataConfig:
    cls = data_config.SOURCE_KINDS[LAYOUT.value]
    source: SourceConfig = cls(INPUT.value) if INPUT.value else cls()
    if isinstance(source, data_config.VideoFolderConfig):
        source = dataclasses.replace(source, binary=BINARY.value)
    stage = recipes.pretraining if STAGE.value == "pretraining" else recipes.main_training
    return stage("", sources=(source,))


def _time_clips(config: DataConfig) -> dict[str, float]:
    """Return milliseconds per clip by stage, and in total."""
    cv2.setNumThreads(1)
    mixture = Mixture(config)
    mixture.sample(0, 0, 0, 0.0)  # opens files, fills caches
    profile = cProfile.Profile(time.process_time)
    for number in range(CLIPS.value):
        entry, epoch = number % len(mixture), number // len(mixture)
        profile.runcall(mixture.sample, entry, epoch, number, number / CLIPS.value)
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    of_function: dict[str, float] = {}
    for (_, _, name), (_, _, _, cumulative, _) in stats.items():
        of_function[name] = max(of_function.get(name, 0.0), cumulative)
    times = {
        stage: sum(of_function.get(name, 0.0) for name in names) * 1e3 / CLIPS.value
        for stage, names in STAGES.items()
    }
    times["total"] = of_function["sample"] * 1e3 / CLIPS.value
    times["other"] = times["total"] - sum(times[stage] for stage in STAGES)
    return times


def _time_whole_videos(source_config: SourceConfig) -> float:
    """Return milliseconds to decode all frames and masks of a video; 0 for photographs."""
    source = open_source(source_config)
    rng, count = np.random.default_rng(0), min(BASELINE_VIDEOS.value, len(source))
    videos = [source.open(item, rng, 3) for item in range(count)]
    if all(video.num_frames == 1 for video in videos):
        return 0.0
    return (
        _clock(lambda: [(v.image(i), v.ids(i)) for v in videos for i in range(v.num_frames)])
        / count
    )


def _clock(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1e3


def _report(config: DataConfig, times: dict[str, float], baseline: float) -> None:
    source = Path(INPUT.value).name if INPUT.value else "synthetic scenes"
    print(f"{source}: {config.num_frames} frames at {config.crop}, {CLIPS.value} clips, one core")
    for stage in (*STAGES, "other", "total"):
        if times[stage] >= 0.05:
            print(f"  {stage:14} {times[stage]:8.1f} ms a clip")
    rate = 1e3 / times["total"]
    print(f"  {rate:.1f} clips/s on one core")
    if baseline:
        print(
            f"  decoding whole videos, as the baseline does, takes {baseline:.0f} ms a clip before "
            f"any augmentation: {baseline / times['total']:.2f} times all of the above"
        )
    if STEP_SECONDS.value:
        needed = BATCH_SIZE.value / STEP_SECONDS.value
        print(
            f"  {BATCH_SIZE.value} clips every {STEP_SECONDS.value} s are {needed:.1f} clips/s: "
            f"{needed / rate:.1f} cores"
        )
