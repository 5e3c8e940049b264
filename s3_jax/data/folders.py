"""Listings of data set directories: videos or images with their masks, and plain pictures.

Only names are read here, never pixels.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from s3_jax.errors import InputError, reason
from s3_jax.media.image_files import IMAGE_SUFFIXES, natural_key, shortened

MASK_SUFFIXES = frozenset((".png", ".bmp", ".gif", ".tif", ".tiff"))
# Fraction of a data set that may be missing before it counts as only partly extracted.
TOLERATED = 0.1
_IMAGES, _ANNOTATIONS = "JPEGImages", "Annotations"
_RESOLUTIONS = ("480p", "Full-Resolution")


@dataclasses.dataclass(frozen=True)
class AnnotatedVideo:
    """The annotated frames of a video, in order.

    frames: pairs of file names, in `images` and in `annotations`.
    num_images: number of all frames, annotated or not.
    """

    name: str
    images: Path
    annotations: Path
    frames: tuple[tuple[str, str], ...]
    num_images: int


@dataclasses.dataclass(frozen=True)
class EvaluationVideo:
    """A video to segment and score: the directories of its images and of its masks."""

    name: str
    images: Path
    annotations: Path


def annotated_videos(
    path: Path, images: str = "", annotations: str = "", subset: str = ""
) -> list[AnnotatedVideo]:
    """Return the annotated videos of a DAVIS-like folder, sorted by name.

    Args:
      path, images, annotations, subset: see `data.config.VideoFolderConfig`.

    Raises:
      InputError: directories are missing, or so many files are that the data set must be
        incomplete.
    """
    image_root, mask_root = video_roots(path, images, annotations)
    names = _leaf_directories(mask_root)
    if subset:
        names = _subset(path / subset, names, mask_root)
    if not names:
        raise InputError(f"{mask_root} holds no directories of masks: give the folder above them")
    missing = [name for name in names if not (image_root / name).is_dir()]
    _tolerate(missing, len(names), f"videos of {mask_root} have no directory in {image_root}")
    absent = set(missing)
    videos = [_pair(name, image_root, mask_root) for name in names if name not in absent]
    partial = [video.name for video, incomplete in videos if incomplete]
    _tolerate(partial, len(names), f"videos of {mask_root} have masks whose frame is not there")
    return [video for video, _ in videos]


def chosen(
    videos: Sequence[AnnotatedVideo], names: Sequence[str], held_out: Sequence[str]
) -> list[AnnotatedVideo]:
    """Return the videos with the given names, or all if `names` is empty, except those held out.

    Raises:
      InputError: a name belongs to no video, or no video is left.
    """
    unknown = sorted({*names, *held_out} - {video.name for video in videos})
    if unknown:
        raise InputError(f"there is no video {unknown[0]!r}: correct videos or held_out")
    left = [v for v in videos if v.name not in held_out and (not names or v.name in names)]
    if not left:
        raise InputError("videos and held_out leave no video: name others")
    return left


def stills(video: AnnotatedVideo) -> list[AnnotatedVideo]:
    """Return each annotated frame of a video as a separate video."""
    return [dataclasses.replace(video, frames=(frame,)) for frame in video.frames]


def evaluation_videos(
    path: Path, images: str = "", annotations: str = "", subset: str = ""
) -> list[EvaluationVideo]:
    """Return the videos of a DAVIS-like folder for evaluation.

    Arguments and errors are those of `annotated_videos`.
    """
    videos = annotated_videos(path, images, annotations, subset)
    return [EvaluationVideo(video.name, video.images, video.annotations) for video in videos]


def video_roots(path: Path, images: str = "", annotations: str = "") -> tuple[Path, Path]:
    """Return the directories whose subdirectories hold the videos' images and masks.

    Raises:
      InputError: they do not exist.
    """
    if not path.is_dir():
        raise InputError(f"the data set {path} does not exist or is not a directory")
    image_root = path / images if images else _find(path, _IMAGES)
    mask_root = path / annotations if annotations else _find(path, _ANNOTATIONS)
    for root in (image_root, mask_root):
        if not root.is_dir():
            raise InputError(f"{root} does not exist: name the directory within {path}")
    return image_root, mask_root


def image_mask_pairs(path: Path) -> list[tuple[Path, Path]]:
    """Return the images below a directory and their masks, paired as in `ImageFolderConfig`.

    Raises:
      InputError: there are no pairs, or so many images lack a mask that the data set must be
        incomplete.
    """
    files = list_files(path)
    masks = [file for file in files if file.suffix.lower() in MASK_SUFFIXES]
    beside = {(file.parent, _bare(file, "_gt")): file for file in masks}
    by_name: dict[str, list[Path]] = {}
    for file in masks:
        by_name.setdefault(_bare(file, "_gt"), []).append(file)
    pairs, alone = [], []
    for file in files:
        if file.suffix.lower() not in IMAGE_SUFFIXES - MASK_SUFFIXES:
            continue
        name = _bare(file, "_im")
        candidates = by_name.get(name, [])
        elsewhere = candidates[0] if len(candidates) == 1 else None
        mask = beside.get((file.parent, name), elsewhere)
        if mask is None:
            alone.append(str(file.relative_to(path)))
        else:
            pairs.append((file, mask))
    if not pairs:
        raise InputError(f"{path} holds no image x.jpg that has a mask x.png")
    _tolerate(alone, len(pairs) + len(alone), f"images of {path} have no mask")
    return pairs


def region_pairs(path: Path) -> list[tuple[Path, Path]]:
    """Return the images of `images/` with their region maps from `regions/`.

    Raises:
      InputError: see `image_mask_pairs`.
    """
    for part in ("images", "regions"):
        if not (path / part).is_dir():
            raise InputError(f"{path / part} does not exist: a region folder has images/, regions/")
    images = pictures(path / "images")
    pairs = [(image, path / "regions" / f"{image.stem}.png") for image in images]
    alone = [image.name for image, regions in pairs if not regions.is_file()]
    _tolerate(alone, len(pairs), f"images of {path} have no file in regions/")
    return [pair for pair in pairs if pair[0].name not in set(alone)]


def pictures(path: Path) -> list[Path]:
    """Return all images below a directory.

    Raises:
      InputError: there are none.
    """
    files = [file for file in list_files(path) if file.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise InputError(f"{path} holds no images")
    return files


def list_files(path: Path) -> list[Path]:
    """Return all files below a directory except hidden ones, in natural order.

    Raises:
      InputError: the directory does not exist or cannot be read.
    """
    if not path.is_dir():
        raise InputError(f"the directory {path} does not exist")
    try:
        found = [file for file in path.rglob("*") if file.is_file()]
    except OSError as error:
        raise InputError(f"cannot list {path}: {reason(error)}") from error
    visible = [file for file in found if not file.name.startswith(".")]
    return sorted(visible, key=lambda file: natural_key(str(file.relative_to(path))))


def _find(path: Path, part: str) -> Path:
    """Find `part` in `path` or `path/train`; prefer its subdirectory for a resolution, if any."""
    tried = [path / part, path / "train" / part]
    for root in tried:
        if root.is_dir():
            sizes = [root / size for size in _RESOLUTIONS if (root / size).is_dir()]
            return sizes[0] if sizes else root
    raise InputError(f"neither {tried[0]} nor {tried[1]} exists: is the data set fully extracted?")


def _leaf_directories(root: Path) -> list[str]:
    """Return the directories below `root` that contain files, as paths relative to `root`."""
    names, pending = [], [root]
    try:
        while pending:
            entries = list(pending.pop().iterdir())
            folders = [e for e in entries if e.is_dir() and not e.name.startswith(".")]
            pending += folders
            names += [str(e.relative_to(root)) for e in folders if _holds_files(e)]
    except OSError as error:
        raise InputError(f"cannot list {root}: {reason(error)}") from error
    return sorted(names, key=natural_key)


def _holds_files(directory: Path) -> bool:
    return any(entry.suffix for entry in directory.iterdir() if not entry.is_dir())


def _subset(file: Path, names: Sequence[str], root: Path) -> list[str]:
    try:
        lines = file.read_text("utf-8-sig").splitlines()  # names may contain spaces
        wanted = [line.strip() for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list of videos {file}: {reason(error)}") from error
    unknown = [name for name in wanted if name not in set(names)]
    _tolerate(unknown, max(1, len(wanted)), f"videos named in {file} are not in {root}")
    return [name for name in names if name in set(wanted)]


def _pair(name: str, image_root: Path, mask_root: Path) -> tuple[AnnotatedVideo, bool]:
    """Return a video, and True if masks were dropped because their frames are missing."""
    images, annotations = image_root / name, mask_root / name
    image_of = _by_stem(images, IMAGE_SUFFIXES)
    mask_of = _by_stem(annotations, MASK_SUFFIXES)
    stems = sorted(set(image_of) & set(mask_of), key=natural_key)
    frames = tuple((image_of[stem], mask_of[stem]) for stem in stems)
    return AnnotatedVideo(name, images, annotations, frames, len(image_of)), len(stems) < len(
        mask_of
    )


def _by_stem(directory: Path, suffixes: frozenset[str]) -> dict[str, str]:
    try:
        entries = [entry.name for entry in directory.iterdir()]
    except OSError as error:
        raise InputError(f"cannot list {directory}: {reason(error)}") from error
    visible = (name for name in entries if not name.startswith("."))
    return {Path(name).stem: name for name in visible if Path(name).suffix.lower() in suffixes}


def _bare(file: Path, ending: str) -> str:
    return file.stem.removesuffix(ending)


def _tolerate(names: Sequence[str], total: int, what: str) -> None:
    """Warn if a few items are missing, and raise an error if many are.

    Raises:
      InputError: more than a tenth are missing.
    """
    if not names:
        return
    message = f"{len(names)} of {total} {what}: {shortened(list(names))}"
    if len(names) > TOLERATED * total:
        raise InputError(f"{message}; is the data set fully extracted?")
    logging.warning("%s; they are left out", message)
