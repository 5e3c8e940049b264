"""Pictures with object masks, kept in memory to train the prompt head on clicks and boxes.

Pictures of any size are concatenated into one flat array, so a program with fixed shapes can sample
views of all of them.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8
from PIL import Image

from s3_jax.errors import InputError

# Unlabelled mask pixels; regions are numbered up to 254.
UNKNOWN = 255
# One in this many pictures of a folder, sorted by name, is held out from training.
HELD_OUT_EVERY = 21


@dataclasses.dataclass(frozen=True)
class PictureFolderConfig:
    """Frozen settings of one folder of pictures.

    images, masks: folders below the data's root. A mask has the name of its image, with ".png".
    share: fraction of the sampled views that come from this folder.
    binary: treat all non-zero pixels as one object; otherwise every id is an object.
    smallest: leave out objects that cover less than this fraction of the picture.
    every: use only one in `every` pictures of a video.
    held_out: names of subfolders to leave out. In a folder without subfolders, one picture in
      `HELD_OUT_EVERY` is left out.
    """

    images: str
    masks: str
    share: float
    binary: bool = False
    smallest: float = 0.002
    every: int = 1
    held_out: tuple[str, ...] = ()


class Pictures(NamedTuple):
    """All pixels of all pictures, p in total, and the m objects in them.

    places: for every object, the position of its picture's first pixel, the picture's height and
      width, and the object's value in the mask.
    boxes: left, top, right, bottom of every object, in pixels of its picture.
    upto: cumulative sampling probability of the objects.
    """

    pixels: UInt8[np.ndarray, "p 3"]
    masks: UInt8[np.ndarray, "p"]
    places: Int32[np.ndarray, "m 4"]
    boxes: Float32[np.ndarray, "m 4"]
    upto: Float32[np.ndarray, "m"]


def load_pictures(root: Path, folders: Sequence[PictureFolderConfig]) -> Pictures:
    """Read the pictures of the folders, except held-out ones.

    Raises:
      InputError: a folder has no pictures with objects.
    """
    pixels: list[UInt8[np.ndarray, "p 3"]] = []
    masks: list[UInt8[np.ndarray, p]] = []
    places: list[tuple[int, ...]] = []
    boxes: list[tuple[int, ...]] = []
    weights: list[float] = []
    begin = 0
    for folder in folders:
        first = len(places)
        for image, mask in _files(root, folder):
            picture, ids = _read(image, mask, folder)
            for value, box in objects(ids, folder.smallest):
                places.append((begin, *ids.shape, value))
                boxes.append(box)
            pixels.append(picture.reshape(-1, 3))
            masks.append(ids.reshape(-1))
            begin += ids.size
        if len(places) == first:
            raise InputError(f"{root / folder.images}: no picture with an object in {folder.masks}")
        weights += [folder.share / (len(places) - first)] * (len(places) - first)
    upto = np.cumsum(weights) / np.sum(weights)
    return Pictures(
        np.concatenate(pixels),
        np.concatenate(masks),
        np.array(places, np.int32),
        np.array(boxes, np.float32),
        upto.astype(np.float32),
    )


def objects(
    ids: UInt8[np.ndarray, "h w"], smallest: float
) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """Yield the value and box (left, top, right, bottom) of every object that is large enough."""
    for value in np.unique(ids):
        if value in (0, UNKNOWN) or (ids == value).mean() < smallest:
            continue
        rows, columns = (np.flatnonzero((ids == value).any(axis)) for axis in (1, 0))
        yield int(value), (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def held_out_objects(
    root: Path, folder: PictureFolderConfig
) -> Iterator[tuple[str, UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]]:
    """Yield each held-out picture: its name, its pixels, and the mask of its largest object."""
    for i, (image, mask) in enumerate(_all_files(root, folder)):
        if _is_held_out(root, folder, i, image):
            picture, ids = _read(image, mask, folder)
            values = [value for value, _ in objects(ids, folder.smallest)]
            if values:
                largest = max(values, key=lambda value: np.count_nonzero(ids == value))
                yield f"{folder.images}/{image.stem}", picture, ids == largest


def _files(root: Path, folder: PictureFolderConfig) -> Iterator[tuple[Path, Path]]:
    for i, (image, mask) in enumerate(_all_files(root, folder)):
        if i % folder.every == 0 and not _is_held_out(root, folder, i, image):
            yield image, mask


def _is_held_out(root: Path, folder: PictureFolderConfig, number: int, image: Path) -> bool:
    if image.parent == root / folder.images:
        return number % HELD_OUT_EVERY == 0
    return image.parent.name in folder.held_out


def _all_files(root: Path, folder: PictureFolderConfig) -> Iterator[tuple[Path, Path]]:
    images = root / folder.images
    for image in sorted(images.rglob("*.jpg")):
        yield image, (root / folder.masks / image.relative_to(images)).with_suffix(".png")


def _read(
    image: Path, mask: Path, folder: PictureFolderConfig
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    try:
        picture = np.array(Image.open(image).convert("RGB"))
        ids = np.array(Image.open(mask))
    except OSError as error:
        raise InputError(f"{error.filename or image}: cannot be read; remove it") from error
    if ids.shape != picture.shape[:2]:
        raise InputError(f"{mask}: its size differs from that of {image}")
    return picture, (ids > 127).astype(np.uint8) if folder.binary else ids.astype(np.uint8)
