"""Fast decoding of images and masks for training; damaged files raise an InputError."""

import io

import cv2
import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from s3_jax.errors import InputError, reason
from s3_jax.media.image_files import DECODE_ERRORS
from s3_jax.media.mask_files import VOID

# JPEG files decode faster at reduced size (libjpeg scales in the DCT). The
# GRAYSCALE constants only set the scale; combined with COLOR_RGB the result is in colour.
REDUCTIONS = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_COLOR_RGB,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | cv2.IMREAD_COLOR_RGB,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_COLOR_RGB,
}
Ids = Integer[np.ndarray, "h w"]


def decode_image(encoded: bytes, where: str, reduction: int = 1) -> UInt8[np.ndarray, "h w 3"]:
    """Decode an image as RGB, its sides divided by `reduction` (1, 2, 4 or 8) and rounded up.

    Args:
      where: name of the image in error messages.

    Raises:
      InputError: the data are damaged, truncated or not an image.
    """
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), REDUCTIONS[reduction])
    except cv2.error as error:
        raise InputError(f"cannot read the image {where}: {reason(error)}") from error
    if image is None:
        raise InputError(f"cannot read the image {where}: damaged, cut off or of unknown format")
    return image


def decode_ids(encoded: bytes, where: str) -> Ids:
    """Decode the object ids of a mask as they are stored; see `mask_files` for the encodings.

    8-bit images give uint8, with 255 for void pixels; others give int32.

    Raises:
      InputError: the data are damaged, truncated or not a mask.
    """
    pixels, mode = _decode_plane(encoded, where)
    if mode in ("PA", "LA"):
        return pixels[..., 0]
    if mode in ("P", "L", "1"):
        return pixels.astype(np.uint8, copy=False)
    if mode.startswith("I"):
        return pixels.astype(np.int32)
    if mode in ("RGB", "RGBA"):
        red, green, blue = (pixels[..., c] for c in range(3))
        if np.array_equal(red, green) and np.array_equal(green, blue):
            return red
        return red + np.int32(256) * green + np.int32(65536) * blue
    raise InputError(f"{where} has pixels of type {mode!r}: save masks as palette or grey PNG")


def decode_foreground(encoded: bytes, where: str) -> UInt8[np.ndarray, "h w"]:
    """Decode a mask of one object as 0 and 1, thresholding soft edges at half the largest value.

    Raises:
      InputError: the data are damaged, truncated or not a mask.
    """
    pixels, mode = _decode_plane(encoded, where)
    if mode in ("RGB", "RGBA"):
        pixels = pixels[..., :3].max(axis=-1)
    elif pixels.ndim == 3:
        pixels = pixels[..., 0]
    threshold = 0 if mode in ("P", "PA") else int(pixels.max(initial=0)) / 2
    return (pixels > threshold).astype(np.uint8)


def without_void(ids: Ids, binary: bool) -> Ids:
    """Return ids with void pixels set to 0 or, if `binary`, with all non-zero ids set to 1."""
    if binary:
        return (ids != 0).astype(np.uint8)
    if ids.dtype == np.uint8 and ids.max(initial=0) == VOID:
        return np.where(ids == VOID, np.uint8(0), ids)
    return ids


def _decode_plane(encoded: bytes, where: str) -> tuple[np.ndarray, str]:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.asarray(image), image.mode
    except DECODE_ERRORS as error:
        raise InputError(f"cannot read the mask {where}: {reason(error)}") from error
