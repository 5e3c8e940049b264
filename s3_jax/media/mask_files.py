"""Mask images: object ids in several encodings, and the matching of files to frames.

Encodings and their ids (0 is always background):

* palette ("P"): the palette index, as in DAVIS, YouTube-VOS and MOSE. The palette is kept.
* grey ("L", also 16-bit and 1-bit): the grey value. A black-and-white mask with values 0 and 255
  therefore has the single object 255, and a 1-bit image the object 1.
* colour ("RGB"): id = R + 256 G + 65536 B, for more than 255 objects. A file in which every
  pixel is grey (R = G = B) is a grey mask saved in colour, and the id is the grey value.

Pixels that an alpha channel (or a palette's transparent entry) makes transparent are background. If
all pixels have the same colour, the opaque pixels are the object. Results are written in the
encoding of the first mask, which preserves ids and colours. JPEG and other lossy files cannot store
ids and are rejected.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Int32, UInt8
from PIL import Image, ImageOps

from s3_jax.errors import InputError, reason
from s3_jax.media.image_files import (
    DECODE_ERRORS,
    list_images,
    opened_image,
    shortened,
    trailing_number,
)
from s3_jax.media.mask_encoding import LARGEST_ID, VOID, Mask, MaskEncoding
from s3_jax.media.mask_gate import UNTOLD, MaskConfig, describe, findings, settle

__all__ = ["VOID", "Mask", "MaskConfig", "MaskEncoding", "MaskFiles", "read_mask"]

LOSSY_SUFFIXES = frozenset((".jpg", ".jpeg"))
# An image with more colours than this is a photograph, not a mask.
MAX_COLOURS = 4096
HALF_OPAQUE = 128
CHECKED_FIRST = 32  # masks of a directory to check before any work begins


def read_mask(
    path: str | Path,
    void: int | None = None,
    encoding: MaskEncoding | None = None,
    config: MaskConfig = UNTOLD,
) -> Mask:
    """Read a mask file; pixels whose id is `void` count as background.

    Args:
      encoding: the encoding of an earlier mask of the same video. If it is "rgb", a colour mask
        whose pixels are all grey is read as "rgb" too.
      config: what the caller knows about the masks.

    Raises:
      InputError: the file is missing, damaged or lossy, or is an image that cannot be a mask.
    """
    path = Path(path)
    if path.suffix.lower() in LOSSY_SUFFIXES:
        raise InputError(
            f"{path} is a JPEG, which blurs object ids: save masks as PNG from the original"
        )
    try:
        with opened_image(path) as image:
            image.load()
            image = ImageOps.exif_transpose(image)  # as for frames
    except DECODE_ERRORS as error:
        raise InputError(f"cannot read the mask {path}: {reason(error)}") from error
    coloured = encoding is not None and encoding.kind == "rgb"
    ids, own_encoding = _decode(path, image, coloured)
    if void is not None:
        ids = np.where(ids == void, 0, ids)
    mask = Mask(path, ids, own_encoding)
    alpha = _alpha(image)
    if alpha is not None and alpha.min() < VOID:
        mask = _seen(mask, alpha, config.threshold or HALF_OPAQUE)
    return settle(mask, config)


class MaskFiles:
    """The mask files of a video, matched to its frames.

    A single file belongs to the first frame. The files of a directory are matched to frames by stem
    or, if no stem fits, by the number at the end of the stem. For video files this number is the
    frame index, from 0.

    fills_before: frames before the first mask are segmented too, so there is no warning about a
      late first mask.

    Raises:
      InputError: the path does not exist, or a file in the directory matches no frame.
    """

    def __init__(
        self,
        path: Path,
        frame_names: Sequence[str] | None,
        void: int | None = None,
        config: MaskConfig | None = None,
        first_number: int = 0,
        fills_before: bool = False,
    ):
        if not path.exists():
            raise InputError(f"{path} does not exist: give a mask image or a directory of them")
        self.path = path
        self.void = void
        self._config = config
        if path.is_dir():
            self.files = _match(path, list_images(path), frame_names, first_number)
        else:
            self.files = {0: path}
            _warn_if_elsewhere(path, frame_names)
        self.first_index, self.first = self._first_with_objects()
        self._known = set(self.first.object_ids)
        if config is not None:
            for index in sorted(self.files)[:CHECKED_FIRST]:
                self.read(index)
        if not fills_before:
            _warn_if_late(self.files, self.first_index, frame_names)

    def read(self, frame_index: int) -> Mask | None:
        """Return the mask of a frame, or None if no file belongs to it.

        Raises:
          InputError: the mask cannot be read, or is inconsistent with the first one.
        """
        file = self.files.get(frame_index)
        if file is None:
            return None
        return self.first if file == self.first.path else self._read_later(file)

    def _read_later(self, file: Path) -> Mask:
        mask = read_mask(file, self.void, self.first.encoding, self._config or UNTOLD)
        largest, limit = max(mask.object_ids, default=0), self.first.encoding.largest_id
        if largest > limit:
            raise InputError(
                f"{file} has an object {largest}, but the first mask, {self.first.path.name}, is "
                f"a {self.first.encoding.kind} image with ids up to {limit}: save all masks "
                "in one format"
            )
        if self._config is not None:
            self._judge(mask)
            self._refuse_other_ids(mask)
        return mask

    def describe(self) -> str:
        """Describe the first mask with objects."""
        others = len(self.files) - 1
        more = f" (and {others} more mask{'s' if others > 1 else ''})" if others else ""
        return f"{self.first.path}, frame {self.first_index}: {describe(self.first)}{more}"

    def _judge(self, mask: Mask) -> None:
        """Raise an InputError for a suspicious mask, or only warn if there is no `MaskConfig`."""
        _warn_of_void(mask, self.void)
        for finding in findings(mask, self._config or UNTOLD):
            if self._config is not None:
                raise InputError(f"{mask.path}: {finding}")
            logging.warning("%s: %s", mask.path, finding)

    def _refuse_other_ids(self, mask: Mask) -> None:
        """Raise an InputError if a mask in a different encoding introduces new ids."""
        new = [i for i in mask.object_ids if i not in self._known]
        kinds = {mask.encoding.kind, self.first.encoding.kind}
        if new and len(kinds) > 1 and kinds != {"grey", "grey_rgb"}:
            raise InputError(
                f"{mask.path} is a {mask.encoding.kind} mask with object {new[0]}, but the first "
                f"mask, {self.first.path.name}, is a {self.first.encoding.kind} mask with "
                f"{describe(self.first)}: save all masks in one format, so that ids agree"
            )
        self._known.update(new)

    def beyond(self, num_frames: int) -> list[str]:
        """Return the names of mask files whose frames lie beyond the end of the video."""
        return [file.name for index, file in self.files.items() if index >= num_frames]

    def _first_with_objects(self) -> tuple[int, Mask]:
        for index in sorted(self.files):
            mask = read_mask(self.files[index], self.void, config=self._config or UNTOLD)
            if mask.object_ids:
                self._judge(mask)
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
        if ids.min() >= 0 and ids.max() <= LARGEST_ID["grey16"]:
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
            f"{path} has {count} different colours, so it is a picture, not a mask: a mask has "
            "one colour per object"
        )
    return ids, MaskEncoding("rgb")


def _plane(image: Image.Image) -> Int32[np.ndarray, "h w"]:
    return np.asarray(image).astype(np.int32)


def _alpha(image: Image.Image) -> UInt8[np.ndarray, "h w"] | None:
    """Return the opacity of every pixel, or None if the file has none."""
    transparent = image.info.get("transparency")
    if image.mode in ("LA", "PA", "RGBA"):
        return np.asarray(image.getchannel("A"))
    if transparent is None:
        return None
    if image.mode == "P":
        table = np.full(256, 255, np.uint8)
        if isinstance(transparent, bytes):
            table[: len(transparent)] = np.frombuffer(transparent, np.uint8)
        else:
            table[int(transparent)] = 0
        return table[np.asarray(image)]
    if image.mode in ("1", "L", "RGB"):
        return np.asarray(image.convert("RGBA").getchannel("A"))
    return None


def _seen(mask: Mask, alpha: UInt8[np.ndarray, "h w"], threshold: int) -> Mask:
    """Return a mask without its transparent pixels.

    Raises:
      InputError: all pixels are transparent.
    """
    opaque = alpha >= threshold
    if not opaque.any():
        raise InputError(
            f"{mask.path}: every pixel is transparent, so it shows nothing: save it without an "
            "alpha channel"
        )
    drawn = len(np.unique(mask.ids)) == 1
    if drawn and not mask.ids.any():  # black on transparent black
        mask = dataclasses.replace(
            mask, ids=np.full_like(mask.ids, VOID), encoding=MaskEncoding("grey")
        )
    return dataclasses.replace(
        mask,
        ids=np.where(opaque, mask.ids, 0),
        from_alpha=drawn,
        soft_alpha=int(np.count_nonzero((alpha > 0) & (alpha < VOID))),
    )


def _match(
    directory: Path, files: Sequence[Path], frame_names: Sequence[str] | None, first_number: int
) -> dict[int, Path]:
    """Match mask files to frame indices."""
    if frame_names is None:
        return _match_numbers(directory, files, None, first_number)
    index_of = {name: index for index, name in enumerate(frame_names)}
    if not any(file.stem in index_of for file in files):
        return _match_numbers(directory, files, frame_names)
    strangers = [file.name for file in files if file.stem not in index_of]
    if strangers:
        raise InputError(
            f"{directory}: no frame is named like {shortened(strangers)}: name masks after "
            f"their frames, such as {frame_names[0]}.png; rename or remove them"
        )
    return {index_of[file.stem]: file for file in files}


def _match_numbers(
    directory: Path,
    files: Sequence[Path],
    frame_names: Sequence[str] | None,
    first_number: int = 0,
) -> dict[int, Path]:
    index_of = None if frame_names is None else _index_by_number(frame_names)
    matched: dict[int, Path] = {}
    for file in files:
        number = trailing_number(file.stem)
        index = number if index_of is None or number is None else index_of.get(number)
        if index is not None and index_of is None:
            index -= first_number
        if index is None or index < 0:
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
    """Map the number at the end of each frame's name to its index; empty if a number repeats."""
    numbers = [trailing_number(name) for name in frame_names]
    if len(set(numbers)) != len(numbers):
        return {}
    return {number: index for index, number in enumerate(numbers) if number is not None}


def _warn_if_elsewhere(path: Path, frame_names: Sequence[str] | None) -> None:
    if frame_names and path.stem in frame_names[1:]:
        logging.warning(
            "%s is taken for the first frame, %s; to annotate frame %s, put the mask in a "
            "directory and pass that directory",
            path,
            frame_names[0],
            path.stem,
        )


def _warn_if_late(
    files: dict[int, Path], first_index: int, frame_names: Sequence[str] | None
) -> None:
    """Warn that frames stay empty because the first object appears later."""
    if not first_index:
        return
    hint = ""
    if frame_names is None and first_index == 1 and 0 not in files:
        hint = "; if files are numbered from 1, pass --first_number=1"
    logging.warning(
        "%s is for frame %d (counted from 0), so the %s no mask and %s empty%s",
        files[first_index],
        first_index,
        "first frame has" if first_index == 1 else f"{first_index} frames before it have",
        "stays" if first_index == 1 else "stay",
        hint,
    )


def _warn_of_void(mask: Mask, void: int | None) -> None:
    """Warn that an object of a palette mask may be the "ignore" label."""
    ids = mask.object_ids
    if mask.encoding.kind == "palette" and VOID in ids and len(ids) > 1 and void is None:
        logging.warning(
            "%s: %d is treated as an object; if it marks pixels to ignore, pass --void=%d",
            mask.path,
            VOID,
            VOID,
        )
