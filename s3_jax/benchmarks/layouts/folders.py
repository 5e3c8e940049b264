"""Data sets with a directory of images and one of annotations, each with a folder per video."""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.benchmarks.layouts.video import FolderVideo
from s3_jax.benchmarks.score_folders import read_sequence_list
from s3_jax.errors import InputError, listed, reason
from s3_jax.media.image_files import IMAGE_SUFFIXES, natural_key, shortened

IMAGES, ANNOTATIONS, FULL = "JPEGImages", "Annotations", "Full-Resolution"
SavedFrames = Callable[[str, list[str]], frozenset[str] | None]


@dataclasses.dataclass(frozen=True)
class Folders:
    """Directories of a split, with a folder of images and a folder of masks for each video.

    base: the directory that holds both, and lists or meta files.
    """

    base: Path
    images: Path
    annotations: Path


def find_folders(
    data_dir: Path,
    config: LayoutConfig,
    bases: Sequence[str] = (".",),
    resolutions: Sequence[str] = (".",),
) -> Folders:
    """Find the directories of a split that the configuration does not name.

    Args:
      bases: directories below `data_dir` that may hold JPEGImages and Annotations.
      resolutions: directories within these that may hold the videos, best first; full-resolution
        images are used if the configuration asks for them.

    Raises:
      InputError: the directories do not exist.
    """
    holders = [base for base in bases if (data_dir / base / ANNOTATIONS).is_dir()]
    base = data_dir / (holders or ["."])[0]
    image_order = sorted(resolutions, key=lambda r: r != FULL) if config.full_resolution else []
    return Folders(
        base,
        data_dir / config.images
        if config.images
        else existing(base / IMAGES, image_order or resolutions, "the directory of images"),
        data_dir / config.annotations
        if config.annotations
        else existing(base / ANNOTATIONS, resolutions, "the directory of masks"),
    )


def existing(root: Path, candidates: Iterable[str], what: str) -> Path:
    """Return the first existing path among candidates below `root`.

    Raises:
      InputError: none exists.
    """
    tried = [root / candidate for candidate in candidates]
    for path in tried:
        if path.exists():
            return path
    names = ", ".join(str(path) for path in tried[:4])
    raise InputError(f"{what} is not there: looked for {names}; give the data set's top directory")


def chosen_names(
    split_file: Path | None, found: Sequence[str], where: Path, fallback: str = ""
) -> list[str]:
    """Return the videos to run: those of the split file, or all found if there is none.

    Args:
      fallback: start of the warning if there is no file.

    Raises:
      InputError: the file names videos that are not in `where`.
    """
    if split_file is None:
        if fallback:
            logging.warning("%s: using all %d videos in %s", fallback, len(found), where)
        return list(found)
    names = read_sequence_list(split_file)
    unknown = [name for name in names if name not in set(found)]
    if unknown:
        close = difflib.get_close_matches(unknown[0], found, n=1)
        hint = f"did you mean {close[0]}?" if close else "is it the list of another split?"
        raise InputError(
            f"{split_file} names {len(unknown)} of {len(names)} videos that are not in {where}: "
            f"{shortened(unknown)}; {hint}"
        )
    return names


def subfolders(root: Path) -> list[str]:
    """Return the names of the directories in `root`, in natural order.

    Raises:
      InputError: there are none, or the directory cannot be listed.
    """
    try:
        names = [p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot list {root}: {reason(error)}") from error
    if not names:
        raise InputError(f"{root} holds no directories: it needs one per video")
    return sorted(names, key=natural_key)


def list_videos(
    names: Sequence[str],
    images: Path,
    annotations: Path,
    saved: SavedFrames = lambda name, frames: None,
    **rules: Any,
) -> list[FolderVideo]:
    """Return the videos with the given names, from a directory of images and one of annotations.

    Args:
      saved: returns the frames for which results are saved, given a video's name and frame names.
      rules: the other fields of `FolderVideo`.

    Raises:
      InputError: videos lack images or masks; the message lists all of them.
    """
    videos, problems = [], []
    for name in names:
        frames = frame_names(images / name)
        if not frames:
            problems.append(f"{images / name} has no images")
        elif not frame_names(annotations / name):
            problems.append(f"{annotations / name} has no masks")
        else:
            folders, own = (images / name, annotations / name), saved(name, frames)
            videos.append(FolderVideo(name, *folders, len(frames), saved=own, **rules))
    if problems:
        raise InputError(
            f"{listed(problems)}\n  extract the data set fully, or choose videos with --sequences"
            if len(problems) > 1
            else f"{problems[0]}: extract the data set fully, or choose videos with --sequences"
        )
    return videos


def frame_names(folder: Path) -> list[str]:
    """Return the stems of a folder's images in natural order; empty if there is no such folder.

    Raises:
      InputError: the folder cannot be listed.
    """
    try:
        names = [p.name for p in folder.iterdir() if not p.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"cannot list {folder}: {reason(error)}") from error
    stems = [Path(name).stem for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    return sorted(stems, key=natural_key)


def listed_frames(
    meta: Mapping[str, frozenset[str]], name: str, frames: Sequence[str], source: Path
) -> frozenset[str]:
    """Return the frames of a video that a meta file lists.

    Raises:
      InputError: the video has no image for one of them.
    """
    absent = sorted(meta[name] - set(frames), key=natural_key)
    if absent:
        raise InputError(
            f"{source} lists {len(absent)} frames of {name} that have no image: "
            f"{shortened(absent)}; is it the file of another split?"
        )
    return meta[name]
