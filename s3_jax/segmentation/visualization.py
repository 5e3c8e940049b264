"""Pictures of a segmented video: contact sheet, overlay video, heat maps, query attention."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8

from s3_jax.errors import InputError
from s3_jax.media.contact_sheet import Tile, contact_sheet, evenly_spaced
from s3_jax.media.heat_map import colour_bar, draw_heat
from s3_jax.media.image_files import natural_key
from s3_jax.media.mask_files import Mask, MaskEncoding, read_mask
from s3_jax.media.overlay import draw_overlay, write_video
from s3_jax.media.query_pictures import QueryChoices, draw_choices
from s3_jax.media.resize import Size, shrink_ids, shrink_image, shrunk_size
from s3_jax.media.video_files import Frame, VideoSource
from s3_jax.media.writers import write_picture
from s3_jax.segmentation.merging import mask_encoding, read_scores
from s3_jax.segmentation.video import MaskSource

Picture = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True)
class SheetConfig:
    """Number of frames on a sheet, number of columns, and column width in pixels."""

    frames: int = 12
    columns: int = 4
    width: int = 320


@runtime_checkable
class Watcher(Protocol):
    """A session that can report, before each step, which tokens its queries will attend to."""

    @property
    def object_ids(self) -> tuple[int, ...]: ...

    def add(self, masks: np.ndarray) -> object: ...

    def choices(self, image: np.ndarray) -> QueryChoices:
        """Return the tokens that the queries will attend to in a frame."""
        ...

    def slot(self, object_id: int) -> int:
        """Return the slot of an object."""
        ...

    def step(self, image: np.ndarray) -> object: ...


def write_sheet(path: Path, source: VideoSource, masks: Path, config: SheetConfig) -> None:
    """Write a contact sheet of evenly spaced frames with their objects.

    Args:
      path: the picture to write.
      source: the video.
      masks: directory with its mask files.

    Raises:
      InputError: there are no masks, or none belongs to a frame.
    """
    encoding = mask_encoding(masks)
    tiles = [
        Tile(_overlaid(frame, masks, encoding), frame.name)
        for frame in _chosen_frames(source, _stems(masks, ".png"), config.frames, masks)
    ]
    write_picture(path, contact_sheet(tiles, config.columns, config.width))


def write_overlay(path: Path, source: VideoSource, masks: Path, frame_rate: Fraction) -> int:
    """Write all frames that have a mask as a video, and return their number.

    Args:
      path: the video to write.
      source: the video.
      masks: directory with its mask files.
      frame_rate: frames per second.

    Raises:
      InputError: there are no masks, or none belongs to a frame.
    """
    encoding, stems = mask_encoding(masks), frozenset(_stems(masks, ".png"))
    frames = (frame for frame in source.frames() if frame.name in stems)
    first = next(frames, None)
    if first is None:
        raise InputError(f"no frame of {source.path} is named like the files in {masks}")
    shown = itertools.chain([first], frames)
    return write_video(path, (_overlaid(f, masks, encoding) for f in shown), frame_rate)


def write_heat_maps(
    stem: Path, source: VideoSource, scores: Path, config: SheetConfig
) -> list[Path]:
    """Write `<stem>_<id>.jpg` for every object, with evenly spaced frames and a colour scale.

    Args:
      stem: beginning of the pictures' paths.
      source: the video.
      scores: directory with its probabilities.

    Raises:
      InputError: there are no probabilities, or none belong to a frame.
    """
    tiles: dict[int, list[Tile]] = {}
    for frame in _chosen_frames(source, _stems(scores, ".npz"), config.frames, scores):
        ids, prob = read_scores(scores / f"{frame.name}.npz")
        for object_id, channel in zip(ids.tolist(), prob[1:], strict=True):
            tile = Tile(draw_heat(frame.image, channel), f"{frame.name}  object {object_id}")
            tiles.setdefault(object_id, []).append(tile)
    if not tiles:
        raise InputError(f"{scores} holds no object probabilities for the frames shown")
    paths = []
    for object_id, own in sorted(tiles.items()):
        paths.append(stem.with_name(f"{stem.name}_{object_id}.jpg"))
        scale = Tile(colour_bar(config.width), "probability, 0 to 1")
        write_picture(paths[-1], contact_sheet([*own, scale], config.columns, config.width))
    return paths


def write_query_choices(
    stem: Path,
    session: Watcher,
    source: VideoSource,
    masks: MaskSource,
    short_side: int,
    config: SheetConfig,
) -> list[Path]:
    """Write `<stem>_<id>.jpg` for every object: a row per chosen frame, a column per block.

    The session segments the video from its beginning up to the last frame shown.

    Args:
      stem: beginning of the pictures' paths.
      session: a new session, which is stepped through the video.
      source: the video.
      masks: masks given for the video.
      short_side: frames are shrunk to this short side in pixels; -1 keeps their size.

    Raises:
      InputError: the video or its masks cannot be used, or the video has only one frame.
    """
    size = shrunk_size(source.size, short_side)
    total = len(source.frame_names) if source.frame_names else source.num_frames or config.frames
    shown = {i + 1 for i in evenly_spaced(max(total - 1, 0), config.frames)}
    rows: dict[int, list[Tile]] = {}
    blocks = 1
    for frame in source.frames():
        if frame.index > max(shown, default=0):
            break
        image = shrink_image(frame.image, size)
        if frame.index in shown and session.object_ids:
            choices = session.choices(image)
            blocks = len(choices.row)
            for object_id in session.object_ids:
                rows.setdefault(object_id, []).extend(
                    _block_tiles(frame, image, choices, session.slot(object_id))
                )
        given = _new_objects(masks.read(frame.index), session.object_ids, size)
        if given is not None:
            session.add(given)
        if session.object_ids or given is not None:
            session.step(image)
    if not rows:
        raise InputError(f"{source.path}: no frame follows the first mask: nothing to draw")
    return [_write_rows(stem, i, tiles, blocks, config.width) for i, tiles in sorted(rows.items())]


def _new_objects(mask: Mask | None, known: Sequence[int], size: Size) -> np.ndarray | None:
    """Return a mask's objects other than the known ones, or None if there are none."""
    if mask is None:
        return None
    ids = shrink_ids(np.where(np.isin(mask.ids, known), 0, mask.ids), size)
    return ids if ids.any() else None


def _block_tiles(frame: Frame, image: Picture, choices: QueryChoices, slot: int) -> Iterator[Tile]:
    for block in range(len(choices.row)):
        yield Tile(draw_choices(image, choices, block, slot), f"{frame.name}  block {block + 1}")


def _write_rows(stem: Path, object_id: int, tiles: list[Tile], columns: int, width: int) -> Path:
    path = stem.with_name(f"{stem.name}_{object_id}.jpg")
    write_picture(path, contact_sheet(tiles, columns, width))
    return path


def _chosen_frames(
    source: VideoSource, stems: Sequence[str], count: int, folder: Path
) -> Iterator[Frame]:
    """Yield evenly spaced frames among those with the given names.

    Raises:
      InputError: no frame has one of these names.
    """
    chosen = {stems[i] for i in evenly_spaced(len(stems), count)}
    found = 0
    for frame in source.frames():
        if frame.name in chosen:
            found += 1
            yield frame
        if found == len(chosen):
            return
    if not found:
        raise InputError(f"no frame of {source.path} is named like the files in {folder}")


def _stems(folder: Path, suffix: str) -> list[str]:
    """Return the stems of result files in natural order.

    Raises:
      InputError: there are none.
    """
    files = folder.glob(f"*{suffix}") if folder.is_dir() else []
    stems = sorted((p.stem for p in files if not p.name.startswith(".")), key=natural_key)
    if not stems:
        raise InputError(f"{folder} holds no {suffix} files")
    return stems


def _overlaid(frame: Frame, masks: Path, encoding: MaskEncoding) -> Picture:
    """Draw the objects over a frame, at the size of the mask if it differs."""
    ids = read_mask(masks / f"{frame.name}.png", encoding=encoding).ids
    height, width = ids.shape
    image = frame.image
    if image.shape[:2] != ids.shape:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    return draw_overlay(image, ids, encoding)
