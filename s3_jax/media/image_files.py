"""Directories of images: which files count, in which order, and how one is read."""

import re
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import UInt8
from PIL import Image, ImageOps

from s3_jax.errors import InputError, reason

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
)
# What Pillow raises for damaged files, by format: OSError mostly, the others for broken chunks,
# headers, absurd sizes and multi-frame files.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    Image.DecompressionBombError,
)


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sort key under which `frame2` comes before `frame10`; ties are broken by the plain name."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def trailing_number(stem: str) -> int | None:
    """The number a file name ends with: 12 for `frame_0012`, None for `frame`."""
    match = re.search(r"([0-9]+)$", stem)
    return int(match.group(1)) if match else None


def list_images(directory: Path) -> list[Path]:
    """The images of a directory in natural order, told by their suffix.

    Hidden files are skipped silently, other files with one warning that names them.

    Raises:
      InputError: the directory holds no image, or two with the same stem.
    """
    try:
        entries = [entry for entry in directory.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot list {directory}: {error.strerror}") from error
    images = [e for e in entries if e.suffix.lower() in IMAGE_SUFFIXES and not e.is_dir()]
    if not images:
        raise InputError(f"{directory} holds no images{_hint(entries)}")
    others = sorted(e.name for e in entries if e not in set(images))
    if others:
        logging.warning("%s: ignored, not images: %s", directory, shortened(others))
    images.sort(key=lambda path: natural_key(path.name))
    _refuse_equal_stems(images)
    return images


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image file as RGB, uint8, turned upright as its EXIF orientation says.

    Raises:
      InputError: the file is missing, cut off or no image.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            return np.array(_eight_bit(upright).convert("RGB"))
    except DECODE_ERRORS as error:
        raise InputError(f"cannot read the image {path}: {reason(error)}") from error


def shortened(names: list[str], most: int = 5) -> str:
    """`a, b, c and 7 more`."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits (Pillow's own conversion would clip it)."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))


def _hint(entries: list[Path]) -> str:
    folders = sorted(entry.name for entry in entries if entry.is_dir())
    if folders:
        return f", but the directories {shortened(folders)}: give one of them"
    return f" ({', '.join(sorted(IMAGE_SUFFIXES))}): give a directory of frames or a video file"


def _refuse_equal_stems(images: list[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in images:
        other = seen.setdefault(path.stem, path)
        if other is not path:
            raise InputError(
                f"{other} and {path.name} would have the same result file: remove or rename one"
            )
