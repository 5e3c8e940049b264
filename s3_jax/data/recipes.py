"""The paper's training data for both stages (section 4.1), as folders below a root."""

import dataclasses
from typing import Any

from s3_jax.data.config import DataConfig, ImageFolderConfig, VideoFolderConfig

IMAGES = (
    ImageFolderConfig("FSS-1000"),
    ImageFolderConfig("DUTS-TR"),
    ImageFolderConfig("DUTS-TE"),
    ImageFolderConfig("ECSSD"),
    ImageFolderConfig("BIG", multiplier=5),
    ImageFolderConfig("HRSOD", multiplier=5),
)
# The list is needed because the DAVIS folder also contains the validation videos.
VIDEOS = (
    VideoFolderConfig("DAVIS", subset="ImageSets/2017/train.txt", frame_interval=2, multiplier=2),
    VideoFolderConfig("YouTubeVOS", frame_interval=5),
)
MORE_VIDEOS = {
    "mose": VideoFolderConfig("MOSE", frame_interval=5),
    "burst": VideoFolderConfig("BURST", frame_interval=5),
    "ovis": VideoFolderConfig("OVIS", frame_interval=3),
}


def pretraining(root: str, **changes: Any) -> DataConfig:
    """Return the settings for static images: clips of one object, 3 frames at 384 pixels.

    Args:
      root: the directory with FSS-1000, DUTS-TR, DUTS-TE, ECSSD, BIG and HRSOD.
      changes: fields of `DataConfig` to override.
    """
    stage = DataConfig(
        sources=tuple(_below(root, source) for source in IMAGES),
        num_steps=80_000,
        crop=384,
        num_frames=3,
        max_objects=1,
        merge=0.0,
    )
    return dataclasses.replace(stage, **changes)


def main_training(root: str, more: tuple[str, ...] = (), **changes: Any) -> DataConfig:
    """Return the settings for videos: clips of 8 frames at 480 pixels with up to 3 objects.

    Args:
      root: the directory with DAVIS and YouTubeVOS, and those of MOSE, BURST and OVIS in `more`.
      more: any of "mose", "burst", "ovis".
      changes: fields of `DataConfig` to override.

    Raises:
      ValueError: a name in `more` is unknown.
    """
    unknown = sorted(set(more) - set(MORE_VIDEOS))
    if unknown:
        raise ValueError(f"unknown set {unknown[0]!r}; known sets: {sorted(MORE_VIDEOS)}")
    sources = (*VIDEOS, *(MORE_VIDEOS[name] for name in more))
    stage = DataConfig(
        sources=tuple(_below(root, source) for source in sources),
        num_steps=125_000 if set(more) <= {"mose"} else 175_000,
    )
    return dataclasses.replace(stage, **changes)


def _below(root: str, source: Any) -> Any:
    return dataclasses.replace(source, path=f"{root.rstrip('/')}/{source.path}")
