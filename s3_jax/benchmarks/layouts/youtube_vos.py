"""YouTube-VOS: valid/{JPEGImages,Annotations}/<video>, valid/meta.json.

Every fifth frame is annotated and saved, but methods run on all frames, which are a separate
download: all_frames/valid_all_frames/JPEGImages. Objects may appear later, each with its own mask.
"""

from pathlib import Path

from absl import logging

from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.benchmarks.layouts.folders import (
    IMAGES,
    chosen_names,
    find_folders,
    list_videos,
    listed_frames,
)
from s3_jax.benchmarks.layouts.video import FolderVideo
from s3_jax.benchmarks.protocols import read_meta

BASES = ("valid", ".")
ALL_FRAMES = (
    "all_frames/valid_all_frames",
    "valid_all_frames",
    "valid_all_frames/valid",
    "../valid_all_frames",
    "../all_frames/valid_all_frames",
)


def list_youtube_vos_videos(data_dir: Path, config: LayoutConfig) -> list[FolderVideo]:
    """Return the videos of meta.json, with all frames if these were downloaded.

    Every given mask is used, and results are saved for the frames that meta.json lists.

    Raises:
      InputError: images, masks, meta.json or videos are missing.
    """
    folders = find_folders(data_dir, config, BASES)
    meta_file = folders.base / "meta.json"
    saved = {
        name: frozenset(frame for entry in objects.values() for frame in entry.frames or ())
        for name, objects in read_meta(meta_file).items()
    }
    names = chosen_names(config.sequences, list(saved), meta_file)
    images = folders.images if config.images else _all_frames(data_dir, folders.images)
    return list_videos(
        names,
        images,
        folders.annotations,
        saved=lambda name, frames: listed_frames(saved, name, frames, meta_file),
        rule=config.rule or "all",
        void=config.void_or("auto"),
        reading=config.reading,
    )


def _all_frames(data_dir: Path, sparse: Path) -> Path:
    places = [data_dir / place / IMAGES for place in ALL_FRAMES]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        logging.warning(
            "%s does not exist: running on every fifth frame only, unlike the benchmark's results; "
            "extract valid_all_frames, or pass its JPEGImages with --images",
            places[0],
        )
    return found or sparse
