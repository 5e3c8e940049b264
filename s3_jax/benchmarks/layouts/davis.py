"""DAVIS: JPEGImages/480p/<video>, Annotations/480p/<video>, names of the split in ImageSets.

MOSE and VOST have the same folders without the resolution; MOSE has no list.
"""

from collections.abc import Sequence
from pathlib import Path

from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.benchmarks.layouts.folders import (
    FULL,
    chosen_names,
    find_folders,
    list_videos,
    subfolders,
)
from s3_jax.benchmarks.layouts.video import FolderVideo

RESOLUTIONS = ("480p", FULL, ".")


def list_davis_videos(
    data_dir: Path,
    config: LayoutConfig,
    *,
    lists: Sequence[str] = (),
    bases: Sequence[str] = (".",),
    one_object: bool = False,
) -> list[FolderVideo]:
    """Return the videos of a split; the mask of the first frame is used.

    Args:
      lists: candidates for the split file; if none exists, all videos with masks are used.
      bases: directories below `data_dir` that may hold JPEGImages and Annotations.
      one_object: everything that is not background is one object (DAVIS 2016).

    Raises:
      InputError: images, masks or videos are missing.
    """
    folders = find_folders(data_dir, config, bases, RESOLUTIONS)
    files = [folders.base / name for name in lists]
    split_file = config.sequences or next((file for file in files if file.is_file()), None)
    names = chosen_names(
        split_file,
        subfolders(folders.annotations),
        folders.annotations,
        f"there is no list {files[0]}" if files else "",
    )
    return list_videos(
        names,
        folders.images,
        folders.annotations,
        rule=config.rule or "first_frame",
        one_object=one_object,
        void=config.void_or(None if one_object else "auto"),
        reading=config.reading,
    )
