"""Mask images: object ids per pixel in several encodings, and which frame each file belongs to.

The encodings, and the ids they give (0 is always background):

* palette ("P"): the palette index, as in DAVIS, YouTube-VOS, MOSE. The palette is kept.
* grey ("L", also 16-bit and 1-bit): the grey value. A black-and-white mask with values 0 and
  255 thus holds the one object 255; a 1-bit image the object 1.
* colour ("RGB"): id = R + 256 G + 65536 B, for more than 255 objects. Where every pixel of the
  file is grey (R = G = B) it is a grey mask saved in colour and the id is the grey value.

Alpha channels are ignored. Results are written in the encoding of the first mask, so that ids
and colours stay as given. JPEG and other lossy files cannot hold ids and are refused.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from absl import logging
from jaxtyping import Int32
from PIL import Image

from s3_jax.errors import InputError, reason
from s3_jax.media.image_files import (
    DECODE_ERRORS,
    list_images,
    shortened,
    trailing_number,
)

Kind = Literal["palette", "grey", "grey16", "bilevel", "rgb", "grey_rgb"]
LOSSY_SUFFIXES = frozenset((".jpg", ".jpeg"))
VOID = 255  # the label that palette masks of several data sets use for "do not score"
# More colours than this are a photograph, not a mask.
MAX_COLOURS = 4096
_LARGEST_ID: dict[Kind, int] = {
    "palette": 255,
    "grey": 255,
    "grey16": 65535,
    "bilevel": 1,
    "rgb": 2**24 - 1,
    "grey_rgb": 255,
}


@dataclasses.dataclass(frozen=True)
class MaskEncoding:
    """How ids are stored in an image; `palette` holds R, G, B bytes for kind "palette"."""

    kind: Kind
    palette: bytes = b""

    @property
    def largest_id(self) -> int:
        return _LARGEST_ID[self.kind]


@dataclasses.dataclass(frozen=True, eq=False)
class Mask:
    """Object ids per pixel, 0 for background, and how the file stored them."""

    path: Path
    ids: Int32[np.ndarray, "h w"]
    encoding: MaskEncoding

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The ids present, in ascending order, without background."""
        return tuple(int(i) for i in np.unique(self.ids) if i)


def read_mask(path: Path, void: int | None = None, encoding: MaskEncoding | None = None) -> Mask:
    """A mask file; pixels whose id is `void` count as background.

    encoding: that of an earlier mask of the same video; where it is "rgb", a colour mask that
    happens to be all grey is read by the same rule.

    Raises:
      InputError: missing, damaged, lossy, or an image that cannot be a mask.
    """
    if path.suffix.lower() in LOSSY_SUFFIXES:
        raise InputError(
            f"{path} is a JPEG, which blurs object ids: save masks as PNG from the original"
        )
    try:
        with Image.open(path) as image:
            image.load()
    except DECODE_ERRORS as error:
        raise InputError(f"cannot read the mask {path}: {reason(error)}") from error
    coloured = encoding is not None and encoding.kind == "rgb"
    ids, own_encoding = _decode(path, image, coloured)
    if void is not None:
        ids = np.where(ids == void, 0, ids)
    return Mask(path, ids, own_encoding)


class MaskFiles:
    """Which mask file belongs to which frame.

    A single file belongs to the first frame. The files of a directory are matched to frames
    by stem; where no stem fits, by the number at the end of the stems; for video files by
    that number as the frame's index, from 0.

    Raises:
      InputError: nothing there, or a file of the directory that fits no frame.
    """

    def __init__(self, path: Path, frame_names: Sequence[str] | None, void: int | None = None):
        if not path.exists():
            raise InputError(f"{path} does not exist: give a mask image or a directory of them")
        self.path = path
        self.void = void
        if path.is_dir():
            self.files = _match(path, list_images(path), frame_names)
        else:
            self.files = {0: path}
            _warn_if_elsewhere(path, frame_names)
        self.first_index, self.first = self._first_with_objects()

    def read(self, frame_index: int) -> Mask | None:
        """The mask of a frame, None where there is no file for it."""
        file = self.files.get(frame_index)
        if file is None:
            return None
        return self.first if file == self.first.path else self._read_later(file)

    def _read_later(self, file: Path) -> Mask:
        mask = read_mask(file, self.void, self.first.encoding)
        largest, limit = max(mask.object_ids, default=0), self.first.encoding.largest_id
        if largest > limit:
            raise InputError(
                f"{file} has an object {largest}, but the first mask, {self.first.path.name}, is "
                f"a {self.first.encoding.kind} image with ids up to {limit}: save all masks alike"
            )
        return mask

    def beyond(self, num_frames: int) -> list[str]:
        """Names of mask files for frames that the video turned out not to have."""
        return [file.name for index, file in self.files.items() if index >= num_frames]

    def _first_with_objects(self) -> tuple[int, Mask]:
        for index in sorted(self.files):
            mask = read_mask(self.files[index], self.void)
            if mask.object_ids:
                _warn_if_suspicious(mask, self.void)
                return index, mask
        which = f"{self.path} is" if len(self.files) == 1 else f"all masks in {self.path} are"
        raise InputError(
            f"{which} empty: at least one frame needs a mask with pixels that are not 0"
        )


def _decode(
    path: Path, image: Image.Image, coloured: bool
) -> tuple[Int32[np.ndarray, "h w"], MaskEncoding]:
    mode = image.mode
    if mode in ("P", "PA"):
        palette = bytes(image.getpalette() or ())
        plane = image if mode == "P" else image.getchannel(0)
        return _plane(plane), MaskEncoding("palette", palette)
    if mode in ("L", "LA"):
        return _plane(image.getchannel(0)), MaskEncoding("grey")
    if mode == "1":
        return np.asarray(image).astype(np.int32), MaskEncoding("bilevel")
    if mode.startswith("I"):
        ids = np.asarray(image).astype(np.int64)
        if ids.min() >= 0 and ids.max() <= _LARGEST_ID["grey16"]:
            return ids.astype(np.int32), MaskEncoding("grey16")
    if mode in ("RGB", "RGBA"):
        return _decode_colours(path, np.asarray(image)[..., :3].astype(np.int32), coloured)
    raise InputError(f"{path} has pixels of type {mode!r}: save masks as palette or grey PNG")


def _decode_colours(
    path: Path, rgb: Int32[np.ndarray, "h w 3"], coloured: bool
) -> tuple[Int32[np.ndarray, "h w"], MaskEncoding]:
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    if not coloured and np.array_equal(red, green) and np.array_equal(green, blue):
        return red, MaskEncoding("grey_rgb")
    ids = red + 256 * green + 65536 * blue
    count = len(np.unique(ids))
    if count > MAX_COLOURS:
        raise InputError(
            f"{path} has {count} different colours, so it is a picture: a mask has one colour "
            "for each object"
        )
    return ids, MaskEncoding("rgb")


def _plane(image: Image.Image) -> Int32[np.ndarray, "h w"]:
    return np.asarray(image).astype(np.int32)


def _match(
    directory: Path, files: Sequence[Path], frame_names: Sequence[str] | None
) -> dict[int, Path]:
    """Frame index -> mask file."""
    if frame_names is None:
        return _match_numbers(directory, files, None)
    index_of = {name: index for index, name in enumerate(frame_names)}
    if not any(file.stem in index_of for file in files):
        return _match_numbers(directory, files, frame_names)
    strangers = [file.name for file in files if file.stem not in index_of]
    if strangers:
        raise InputError(
            f"{directory}: no frame is named like {shortened(strangers)}: masks are named as "
            f"their frame is, such as {frame_names[0]}.png; rename or remove them"
        )
    return {index_of[file.stem]: file for file in files}


def _match_numbers(
    directory: Path, files: Sequence[Path], frame_names: Sequence[str] | None
) -> dict[int, Path]:
    index_of = None if frame_names is None else _index_by_number(frame_names)
    matched: dict[int, Path] = {}
    for file in files:
        number = trailing_number(file.stem)
        index = number if index_of is None or number is None else index_of.get(number)
        if index is None:
            wanted = "the index of its frame, such as 00000.png"
            wanted = wanted if frame_names is None else f"its frame, such as {frame_names[0]}.png"
            raise InputError(f"{file} belongs to no frame of the video: name a mask after {wanted}")
        if index in matched:
            raise InputError(
                f"{directory}: {matched[index].name} and {file.name} are both for frame {index}: "
                "remove one"
            )
        matched[index] = file
    return matched


def _index_by_number(frame_names: Sequence[str]) -> dict[int, int]:
    """Number at the end of a frame's name -> index; empty where numbers are not unique."""
    numbers = [trailing_number(name) for name in frame_names]
    if len(set(numbers)) != len(numbers):
        return {}
    return {number: index for index, number in enumerate(numbers) if number is not None}


def _warn_if_elsewhere(path: Path, frame_names: Sequence[str] | None) -> None:
    if frame_names and path.stem in frame_names[1:]:
        logging.warning(
            "%s is taken for the first frame, %s; to annotate frame %s, put the mask in a "
            "directory and give that",
            path,
            frame_names[0],
            path.stem,
        )


def _warn_if_suspicious(mask: Mask, void: int | None) -> None:
    """Two mistakes that cannot be told from intent for certain."""
    ids = mask.object_ids
    if mask.encoding.kind == "palette" and VOID in ids and len(ids) > 1 and void is None:
        logging.warning(
            "%s: %d is taken for an object; if it marks pixels to ignore, pass --void=%d",
            mask.path,
            VOID,
            VOID,
        )
    extremes = np.isin(mask.ids, (0, VOID)).mean()
    if mask.encoding.kind.startswith("grey") and VOID in ids and len(ids) > 16 and extremes > 0.9:
        logging.warning(
            "%s holds %d grey values, each taken for an object; if it is a black-and-white "
            "mask with soft edges, threshold it first",
            mask.path,
            len(ids),
        )
