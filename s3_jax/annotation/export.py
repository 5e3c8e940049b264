"""Export of annotated videos to the formats of other programs.

    what = Export("bear", frames_of(annotator, frame_names), looks, Fraction(24))
    path = FORMATS["coco"](what, folder)

Each writer atomically creates one file or one directory in the folder, replacing the output of an
earlier export. `annotation.importing` reads the same masks back.
"""

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from s3_jax.annotation.annotator import Annotator
from s3_jax.annotation.looks import ObjectLook, default_look, palette_of
from s3_jax.media.alpha_video import AlphaCodec, write_alpha_video
from s3_jax.media.mask_encoding import MaskEncoding, encoding_for
from s3_jax.media.output_paths import inside
from s3_jax.media.overlay import draw_overlay, write_video
from s3_jax.media.rle import encode_rle
from s3_jax.media.writers import write_json, write_mask, write_picture, write_rgba

Image = UInt8[np.ndarray, "h w 3"]


@dataclasses.dataclass(frozen=True, eq=False)
class ExportFrame:
    """A frame with its masks.

    name: stem of the frame's output files.
    file_name: name of the frame's own file, if the video is a directory of images.
    image: function that decodes its RGB pixels.
    """

    index: int
    name: str
    ids: Integer[np.ndarray, "h w"]
    image: Callable[[], Image]
    file_name: str | None = None


@dataclasses.dataclass(frozen=True)
class Export:
    """Content of an export.

    name: name of the video.
    frames: returns an iterator over the annotated frames, in order; may be called repeatedly.
    looks: names and colours of objects. Other objects are named and coloured by their ids.
    only: objects to export; None for all.
    """

    name: str
    frames: Callable[[], Iterator[ExportFrame]]
    looks: Mapping[int, ObjectLook]
    frame_rate: Fraction
    only: frozenset[int] | None = None

    def chosen(self) -> Iterator[ExportFrame]:
        """Yield the frames, keeping only the masks of the objects to export."""
        for frame in self.frames():
            if self.only is not None:
                ids = np.where(np.isin(frame.ids, sorted(self.only)), frame.ids, 0)
                frame = dataclasses.replace(frame, ids=ids)
            yield frame

    def look(self, object_id: int) -> ObjectLook:
        """Return the look of an object."""
        return self.looks.get(object_id, default_look(object_id))

    def encoding(self) -> MaskEncoding:
        """Return an encoding that can store the ids of all frames."""
        largest = max((int(frame.ids.max(initial=0)) for frame in self.chosen()), default=0)
        return encoding_for(largest, palette_of(self.looks))


def frames_of(
    annotator: Annotator, names: Sequence[str], file_names: Sequence[str] | None = None
) -> Callable[[], Iterator[ExportFrame]]:
    """Return a function that yields the frames of an annotator that have a result.

    Args:
      names: name of every frame of the video.
      file_names: names of the image files, if the video is a directory of images.
    """

    def frames() -> Iterator[ExportFrame]:
        """Yield the frames with a result, in order."""
        for index in annotator.found_frames:
            found = annotator.found(index)
            if found is not None:
                file = file_names[index] if file_names else None
                image = functools.partial(annotator.frame, index)
                yield ExportFrame(index, names[index], found.ids, image, file)

    return frames


def write_mask_files(what: Export, folder: Path) -> Path:
    """Write `masks/<frame>.png`, the layout that `s3 segment` reads and writes."""
    encoding = what.encoding()
    with _directory(folder, "masks") as masks:
        for frame in what.chosen():
            write_mask(inside(masks, f"{frame.name}.png", what.name), frame.ids, encoding)
    return folder / "masks"


def write_youtube_vos(what: Export, folder: Path) -> Path:
    """Write `youtube_vos/` with `JPEGImages/<video>`, `Annotations/<video>` and `meta.json`."""
    encoding = what.encoding()
    names_of: dict[int, list[str]] = {}
    with _directory(folder, "youtube_vos") as root:
        images = inside(root, f"JPEGImages/{what.name}", what.name)
        masks = inside(root, f"Annotations/{what.name}", what.name)
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for frame in what.chosen():
            write_picture(inside(images, f"{frame.name}.jpg", what.name), frame.image())
            write_mask(inside(masks, f"{frame.name}.png", what.name), frame.ids, encoding)
            for object_id in _present(frame.ids):
                names_of.setdefault(object_id, []).append(frame.name)
        objects = {
            str(object_id): {"category": what.look(object_id).name, "frames": names}
            for object_id, names in sorted(names_of.items())
        }
        write_json(root / "meta.json", {"videos": {what.name: {"objects": objects}}})
    return folder / "youtube_vos"


def write_coco(what: Export, folder: Path) -> Path:
    """Write `coco.json`, with an image per frame, a category per object, and masks as run lengths.

    An annotation's `track_id` is its object's id, and an image's `frame` is its frame's index.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    present: set[int] = set()
    for frame in what.chosen():
        height, width = frame.ids.shape
        images.append({
            "id": frame.index + 1, "file_name": frame.file_name or f"{frame.name}.jpg",
            "height": height, "width": width, "frame": frame.index,
        })  # fmt: skip
        for object_id in _present(frame.ids):
            present.add(object_id)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": frame.index + 1}
                | _coco_annotation(frame.ids == object_id, object_id)
            )
    categories = [
        {"id": i, "name": what.look(i).name, "color": list(what.look(i).colour)}
        for i in sorted(present)
    ]
    path = folder / "coco.json"
    write_json(path, {
        "info": {"description": what.name}, "images": images, "categories": categories,
        "annotations": annotations,
    })  # fmt: skip
    return path


def write_overlay(what: Export, folder: Path) -> Path:
    """Write `overlay.mp4`, the video with its objects drawn in their colours."""
    encoding = MaskEncoding("palette", palette_of(what.looks))
    pictures = (draw_overlay(frame.image(), frame.ids, encoding) for frame in what.chosen())
    write_video(folder / "overlay.mp4", pictures, what.frame_rate)
    return folder / "overlay.mp4"


def write_cutouts(what: Export, folder: Path) -> Path:
    """Write `cutouts/<frame>.png`, the objects on a transparent background."""
    with _directory(folder, "cutouts") as root:
        for frame in what.chosen():
            write_rgba(inside(root, f"{frame.name}.png", what.name), cut_out(frame))
    return folder / "cutouts"


def write_cutout_mov(what: Export, folder: Path) -> Path:
    """Write `cutout.mov`, the cut-outs as a ProRes 4444 video."""
    return _cutout_video(what, folder / "cutout.mov", "prores")


def write_cutout_webm(what: Export, folder: Path) -> Path:
    """Write `cutout.webm`, the cut-outs as a VP9 video."""
    return _cutout_video(what, folder / "cutout.webm", "vp9")


FORMATS: dict[str, Callable[[Export, Path], Path]] = {
    "masks": write_mask_files,
    "coco": write_coco,
    "youtube_vos": write_youtube_vos,
    "overlay": write_overlay,
    "cutouts": write_cutouts,
    "cutout_mov": write_cutout_mov,
    "cutout_webm": write_cutout_webm,
}


def cut_out(frame: ExportFrame) -> UInt8[np.ndarray, "h w 4"]:
    """Return a frame as RGBA: opaque (255) where an object is, black and transparent elsewhere."""
    opaque = frame.ids > 0
    alpha = (opaque * np.uint8(255))[..., None]
    return np.concatenate([np.where(opaque[..., None], frame.image(), 0), alpha], axis=2)


def _cutout_video(what: Export, path: Path, codec: AlphaCodec) -> Path:
    write_alpha_video(path, map(cut_out, what.chosen()), what.frame_rate, codec)
    return path


def _coco_annotation(mask: np.ndarray, object_id: int) -> dict[str, Any]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return {
        "category_id": object_id,
        "track_id": object_id,
        "segmentation": {"size": list(mask.shape), "counts": encode_rle(mask)},
        "area": int(mask.sum()),
        "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
        "iscrowd": 0,
    }


def _present(ids: Integer[np.ndarray, "h w"]) -> list[int]:
    return [int(i) for i in np.unique(ids) if i]


@contextlib.contextmanager
def _directory(folder: Path, name: str) -> Iterator[Path]:
    """Yield a new directory that replaces the existing one of this name once it is complete."""
    final, fresh, old = (folder / part for part in (name, f".{name}.tmp", f".{name}.old"))
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        fresh.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
