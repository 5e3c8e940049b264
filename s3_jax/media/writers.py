"""Writers for result files; each writes under a temporary name, so a file is complete or absent."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Integer, UInt8
from PIL import Image

from s3_jax.errors import InputError
from s3_jax.files import replacing
from s3_jax.media.mask_files import MaskEncoding
from s3_jax.media.palette import voc_palette


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a dictionary as indented JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write a table whose first row is the header.

    Text that a spreadsheet would evaluate as a formula gets a leading apostrophe, so that it is
    shown as text.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([*map(_as_text, row)] for row in rows)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), "utf-8", "surrogateescape")


def _as_text(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.startswith(_FORMULA) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?")


def write_mask(path: Path, ids: Integer[np.ndarray, "h w"], encoding: MaskEncoding) -> None:
    """Write object ids as a PNG file in the given encoding.

    Raises:
      InputError: an id is too large for the encoding.
    """
    largest = int(ids.max(initial=0))
    if largest > encoding.largest_id:
        raise InputError(
            f"{path}: object id {largest} does not fit into a {encoding.kind} mask, whose "
            f"largest id is {encoding.largest_id}: save all masks in an encoding that holds all ids"
        )
    with replacing(path) as temporary:
        _encode(ids, encoding).save(temporary, format="PNG")


def write_scores(
    path: Path, prob: Float32[np.ndarray, "k h w"], object_ids: tuple[int, ...]
) -> None:
    """Write probabilities as compressed npz: `prob`, and the `ids` of all channels after the first.

    Equal values give equal bytes, because the archive's time stamps are constant. Compression level
    1 takes a fifth of NumPy's time and gives about the same size, because float32 noise hardly
    compresses.

    Args:
      path: the .npz file.
      prob: probabilities; the first channel is the background.
      object_ids: ids of the other channels, in order.
    """
    arrays = {"prob": np.asarray(prob, np.float32), "ids": np.asarray(object_ids, np.int32)}
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)


def write_picture(path: Path, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write an RGB picture as JPEG or PNG, depending on the suffix of the path."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 90] if path.suffix == ".jpg" else []
    encoded = cv2.imencode(path.suffix, picture[..., ::-1], quality)[1]
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def write_rgba(path: Path, picture: UInt8[np.ndarray, "h w 4"]) -> None:
    """Write an RGBA picture as a PNG file."""
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG", compress_level=1)


def _encode(ids: Integer[np.ndarray, "h w"], encoding: MaskEncoding) -> Image.Image:
    match encoding.kind:
        case "palette":
            height, width = ids.shape
            image = Image.frombytes("P", (width, height), ids.astype(np.uint8).tobytes())
            image.putpalette(_long_enough(encoding.palette, int(ids.max(initial=0))))
            return image
        case "grey":
            return Image.fromarray(ids.astype(np.uint8))
        case "grey16":
            return Image.fromarray(ids.astype(np.uint16))
        case "bilevel":
            return Image.fromarray(ids.astype(bool))
        case "grey_rgb":
            return Image.fromarray(np.repeat(ids.astype(np.uint8)[..., None], 3, axis=2))
        case "rgb":
            channels = [(ids.astype(np.int32) >> shift) & 255 for shift in (0, 8, 16)]
            return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def _long_enough(palette: bytes, largest_id: int) -> bytes:
    """Return a palette, extended with VOC colours if an id lies beyond its end."""
    if len(palette) > 3 * largest_id:
        return palette
    return palette + voc_palette().tobytes()[len(palette) : 3 * (largest_id + 1)]
