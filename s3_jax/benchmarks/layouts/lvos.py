"""LVOS: {val,test}/{JPEGImages,Annotations}/<video>; videos are much longer than elsewhere.

The validation set includes masks of all frames, but only the first mask of each object is used.
"""

from pathlib import Path

from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.benchmarks.layouts.folders import (
    chosen_names,
    find_folders,
    frame_names,
    list_videos,
    subfolders,
)
from s3_jax.benchmarks.layouts.video import FolderVideo


def list_lvos_videos(data_dir: Path, config: LayoutConfig, *, split: str) -> list[FolderVideo]:
    """Return the videos of a split.

    Results are saved for the frames in its JPEGImages, even if --images names a directory with more
    frames.

    Raises:
      InputError: images, masks or videos are missing.
    """
    bases = (split, "valid", ".") if split == "val" else (split, ".")
    folders = find_folders(data_dir, config, bases)
    found = subfolders(folders.annotations)
    names = chosen_names(config.sequences, found, folders.annotations)
    listing = folders.base / "JPEGImages"
    return list_videos(
        names,
        folders.images,
        folders.annotations,
        saved=lambda name, frames: frozenset(frame_names(listing / name)) & {*frames} or None,
        rule=config.rule or "first_of_each",
        void=config.void_or("auto"),
        reading=config.reading,
    )
