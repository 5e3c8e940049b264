"""Image directories: which files count as images, their order, and decoding."""

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import logging
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps

from s3_jax.errors import InputError, reason
from s3_jax.limits import require_within

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
)
# Exceptions that Pillow raises for damaged files: mostly OSError, others for broken chunks,
# bad headers, absurd sizes and multi-frame files.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    Image.DecompressionBombError,
)
Deep = NDArray[Any]  # (h, w) or (h, w, 3), uint16, int32 or float32
_MOST_CHUNKS = 10_000
_MOST_CUT_OFF = 1 << 26  # bytes of pixels that may be missing from a truncated file


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that puts `frame2` before `frame10`, with ties broken by the plain name."""
    parts = re.split(r"([0-9]+)", name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


def trailing_number(stem: str) -> int | None:
    """Return the number at the end of a file's stem: 12 for `frame_0012`, None for `frame`."""
    match = re.search(r"([0-9]+)$", stem)
    return int(match.group(1)) if match else None


def list_images(directory: Path) -> list[Path]:
    """Return the images of a directory, recognized by suffix, in natural order.

    Hidden files are skipped silently. Other files are skipped with one warning that names them.

    Raises:
      InputError: the directory has no images, or two with the same stem.
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


def read_image(path: Path, white: float | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Read an image file as 8-bit RGB, upright according to its EXIF orientation.

    Args:
      white: the value that becomes 255 in images of more than 8 bits. By default it is chosen to
        fit this image (see `full_range`).

    Raises:
      InputError: the file is missing, truncated or not an image.
    """
    try:
        deep = read_deep(path)
        if deep is not None:
            return _eight_bit(deep, white or full_range(float(deep.max()), deep.dtype))
        with opened_image(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except DECODE_ERRORS as error:
        raise InputError(f"cannot read the image {path}: {reason(error)}") from error


@contextlib.contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """Open an image file, and check the size in its header against the budget.

    Raises:
      InputError: the image is too large.
      DECODE_ERRORS: the file is missing, its header is damaged, or it has several pictures.
    """
    require_file(path)
    _refuse_long_chunks(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own warning limit is higher than ours
        image = Image.open(path)
    with image:
        pixels = image.width * image.height / 1e6
        size = f"{path} has {image.width}x{image.height} pixels, {pixels:.0f} megapixels"
        require_within("megapixels", pixels, size)
        pictures = getattr(image, "n_frames", 1)
        if pictures > 1 and image.format != "MPO":  # cameras store previews in MPO files
            raise OSError(f"it holds {pictures} pictures: save each as a separate file")
        yield image


def require_file(path: Path) -> None:
    """Raise an OSError for pipes and devices, because reading a pipe might never end."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError("it is not a regular file")


def shortened(names: list[str], most: int = 5) -> str:
    """Join names for a message: `a, b, c and 7 more`."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def read_deep(path: Path) -> Deep | None:
    """Return the values of a grey or colour image with more than 8 bits, or None for other images.

    Raises:
      InputError, DECODE_ERRORS: see `read_image`.
    """
    with opened_image(path) as image:
        if image.mode.startswith("I") or image.mode == "F":
            return _checked(path, np.asarray(ImageOps.exif_transpose(image)))
        if not _is_deep_colour(path, image):
            return None
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise InputError(f"cannot read the image {path}: its 16-bit pixels are damaged")
    if pixels.dtype == np.uint8:
        return None
    if pixels.ndim == 2:
        return _checked(path, pixels)
    colours = pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    return _checked(path, colours[..., ::-1])


def full_range(largest: float, dtype: np.dtype) -> float:
    """Return the white level of a recording: the maximum of the smallest bit depth that fits.

    Cameras with 10, 12 or 14 bits store their values in 16-bit files, which would otherwise look
    nearly black.
    """
    if np.issubdtype(dtype, np.floating) and largest <= 1:
        return 1.0
    whites = [2.0**bits - 1 for bits in (8, 10, 12, 14, 16)]
    if np.issubdtype(dtype, np.floating) and largest < whites[0] / 4:
        return float(largest)  # a linear recording with values above 1
    return next((white for white in whites if largest <= white), float(largest))


def _is_deep_colour(path: Path, image: Image.Image) -> bool:
    """Return True if Pillow would reduce a multi-channel file to 8 bits."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24:25] == b"\x10"  # bit depth in the header
    if image.format == "TIFF":
        bits = image.tag_v2.get(258, (8,))  # type: ignore[attr-defined]
        return max(bits if isinstance(bits, tuple) else (bits,)) > 8
    return False


def _checked(path: Path, values: Deep) -> Deep:
    if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
        raise InputError(f"{path} has pixels that are not finite (NaN or infinity): repair it")
    if values.min() < 0:
        raise InputError(f"{path} has values below 0: scale it to 0 to 1, or to integers")
    return values


def _eight_bit(values: Deep, white: float) -> UInt8[np.ndarray, "h w 3"]:
    if np.issubdtype(values.dtype, np.floating):
        scaled = np.round(values * (255 / white)).clip(0, 255).astype(np.uint8)
    else:  # the 8 most significant bits of the recording
        scaled = (values.astype(np.float32) * (256 / (white + 1))).clip(0, 255).astype(np.uint8)
    return scaled if scaled.ndim == 3 else np.repeat(scaled[..., None], 3, axis=2)


def _refuse_long_chunks(path: Path) -> None:
    """Raise an OSError for a PNG chunk longer than the file, which decoders would allocate in full.

    Pixel data that is merely truncated is reported during decoding.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(8) != b"\x89PNG\r\n\x1a\n":
            return
        for _ in range(_MOST_CHUNKS):
            header = file.read(8)
            if len(header) < 8 or header[4:] == b"IEND":
                return
            after = file.tell() + int.from_bytes(header[:4], "big") + 4
            if after > size + (_MOST_CUT_OFF if header[4:] == b"IDAT" else 0):
                raise OSError(f"a chunk of the PNG is longer than the file ({size:,} bytes)")
            file.seek(after)


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
