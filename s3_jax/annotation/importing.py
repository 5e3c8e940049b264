"""Import of masks from other programs: mask files in the usual layouts, and COCO JSON.

    for index, masks in import_masks(path, frame_names, size).frames():
        annotator.annotate(index, masks)

The layout is recognized by its files: a JSON file is COCO, `Annotations/<video>` is the layout of
YouTube-VOS and DAVIS, and `masks/` that of `s3 segment` and `s3 annotate`. Anything else must be
what `s3 segment` accepts: a directory of masks, or a single mask for the first frame.
"""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from s3_jax.annotation.given import Mask
from s3_jax.benchmarks.protocols import read_meta
from s3_jax.errors import InputError, reason
from s3_jax.limits import require_within
from s3_jax.media.image_files import trailing_number
from s3_jax.media.json_files import read_json
from s3_jax.media.mask_files import MaskConfig, MaskFiles
from s3_jax.media.rle import decode_rle

Size = tuple[int, int]
Masks = dict[int, Mask]


@dataclasses.dataclass(frozen=True)
class Imported:
    """Masks found at a path.

    frames: returns an iterator over the frames that show objects, in order. Its items are the
      frame's index and its masks by object id.
    names: names of the objects, if the files contain any.
    """

    frames: Callable[[], Iterator[tuple[int, Masks]]]
    names: Mapping[int, str]


def import_masks(path: Path, frame_names: Sequence[str], size: Size) -> Imported:
    """Open the masks of a video whose frames have these names and this size (height, width).

    Args:
      path: a file or directory in one of the layouts above.
      frame_names: names of all frames of the video.
      size: (height, width) of the frames.

    Raises:
      InputError: nothing was found, the format is unknown, or masks match no frame or differ in
        size.
    """
    if path.suffix.lower() == ".json":
        return _coco(path, frame_names, size)
    names: dict[int, str] = {}
    folder = path
    if (path / "Annotations").is_dir():
        folder = _only_video(path / "Annotations")
        names = _youtube_vos_names(path / "meta.json", folder.name)
    elif (path / "masks").is_dir():
        folder = path / "masks"
    masks = MaskFiles(folder, list(frame_names), config=MaskConfig())

    def frames() -> Iterator[tuple[int, Masks]]:
        """Yield frame numbers with the masks read from files."""
        for index in sorted(masks.files):
            mask = masks.read(index)
            assert mask is not None
            _require_size(mask.path, mask.ids.shape, size)
            if mask.object_ids:
                yield index, {id_: mask.ids == id_ for id_ in mask.object_ids}

    return Imported(frames, names)


def _only_video(annotations: Path) -> Path:
    """Return the mask folder of the only video in a data set, or `annotations` itself."""
    videos = sorted(entry for entry in annotations.iterdir() if entry.is_dir())
    if len(videos) > 1:
        raise InputError(
            f"{annotations} has masks of {len(videos)} videos: give the folder of one of them"
        )
    return videos[0] if videos else annotations


def _youtube_vos_names(file: Path, video: str) -> dict[int, str]:
    if not file.exists():
        return {}
    objects = read_meta(file).get(video, {})
    return {id_: meta.category for id_, meta in objects.items() if meta.category}


def _coco(path: Path, frame_names: Sequence[str], size: Size) -> Imported:
    try:
        return _read_coco(path, read_json(path), frame_names, size)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read as COCO JSON ({type(error).__name__}: {reason(error)}): it "
            "must hold images and annotations with segmentations"
        ) from error


def _read_coco(
    path: Path, content: dict[str, Any], frame_names: Sequence[str], size: Size
) -> Imported:
    by_frame = _annotations_by_frame(path, content, frame_names, size)
    id_of = _identities(path, by_frame)
    categories = {c["id"]: str(c["name"]) for c in content.get("categories", ())}
    names: dict[int, str] = {}
    for annotation in itertools.chain(*by_frame.values()):
        _segment(path, annotation, size)  # check every mask before the first is used
        if annotation.get("category_id") in categories:
            names[id_of(annotation)] = categories[annotation["category_id"]]

    def frames() -> Iterator[tuple[int, Masks]]:
        """Yield frame numbers with the masks of their annotations."""
        for index in sorted(by_frame):
            masks: Masks = {}
            for annotation in by_frame[index]:
                mask, id_ = _segment(path, annotation, size), id_of(annotation)
                masks[id_] = masks[id_] | mask if id_ in masks else mask
            masks = {id_: mask for id_, mask in masks.items() if mask.any()}
            if masks:
                yield index, masks

    return Imported(frames, names)


def _annotations_by_frame(
    path: Path, content: dict[str, Any], frame_names: Sequence[str], size: Size
) -> dict[int, list[dict[str, Any]]]:
    """Group annotations by frame, leaving out those of images that are not frames."""
    images = {image["id"]: image for image in content["images"]}
    index_of = _frames_of_images(path, images, frame_names)
    for key in index_of:
        _require_size(path, (int(images[key]["height"]), int(images[key]["width"])), size)
    by_frame: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        image = annotation["image_id"]
        if image not in images:
            raise ValueError(f"an annotation refers to image {image!r}, which is not listed")
        if image in index_of:
            by_frame[index_of[image]].append(annotation)
    return by_frame


def _frames_of_images(
    path: Path, images: Mapping[Any, dict[str, Any]], frame_names: Sequence[str]
) -> dict[Any, int]:
    """Map image ids to frame indices by file name, else by `frame`, else by trailing number."""
    by_name = {name: index for index, name in enumerate(frame_names)}
    by_number = {trailing_number(name): index for index, name in enumerate(frame_names)}
    found: dict[Any, int] = {}
    for key, image in images.items():
        stem = Path(str(image["file_name"])).stem
        index = by_name.get(stem, image.get("frame", by_number.get(trailing_number(stem))))
        if isinstance(index, int) and 0 <= index < len(frame_names):
            found[key] = index
    if images and not found:
        raise InputError(
            f"{path}: none of its {len(images)} images is a frame of the video: an image's "
            f"file_name must be that of its frame, such as {frame_names[0]}.jpg"
        )
    if len(set(found.values())) < len(found):
        raise InputError(f"{path}: two images are the same frame of the video: remove one")
    return found


def _identities(
    path: Path, by_frame: Mapping[int, list[dict[str, Any]]]
) -> Callable[[dict[str, Any]], int]:
    """Return a function that maps an annotation to its object id.

    The object is the annotation's track. Without tracks it is the category, if no frame has a
    category twice.
    """
    everything = list(itertools.chain(*by_frame.values()))
    tracks = [_track(annotation) for annotation in everything]
    if everything and None not in tracks:
        return _positive(path, everything, _track)
    for index, annotations in by_frame.items():
        categories = [a["category_id"] for a in annotations]
        if len(set(categories)) < len(categories):
            raise InputError(
                f"{path}: frame {index} has two objects of one category, which cannot be told "
                "apart in other frames: give every annotation a track_id"
            )
    return _positive(path, everything, lambda a: a["category_id"])


def _track(annotation: dict[str, Any]) -> Any:
    """Return an annotation's track id, which CVAT puts among the attributes, or None."""
    for place in (annotation, annotation.get("attributes")):
        for field in ("track_id", "instance_id", "object_id"):
            if isinstance(place, dict) and field in place:
                return place[field]
    return None


def _positive(
    path: Path, everything: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], Any]
) -> Callable[[dict[str, Any]], int]:
    """Return a map to object ids: the values themselves if all are positive, else 1, 2, ..."""
    values = sorted({value(a) for a in everything}, key=lambda v: (isinstance(v, str), v))
    require_within("objects", float(len(values)), f"{path} has {len(values)} objects")
    usable = all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in values)
    ids = {v: v if usable else number for number, v in enumerate(values, 1)}
    return lambda annotation: ids[value(annotation)]


def _segment(path: Path, annotation: dict[str, Any], size: Size) -> Mask:
    """Decode an annotation's mask, which is run lengths (text or numbers) or polygons."""
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, list):
        return _polygons(segmentation, size)
    _require_size(path, tuple(segmentation["size"]), size)
    counts = segmentation["counts"]
    if isinstance(counts, str):
        return decode_rle(counts, size)
    runs = np.array(counts, np.int64)
    if runs.ndim != 1 or runs.min(initial=0) < 0 or runs.sum() != size[0] * size[1]:
        raise ValueError("run lengths do not add up to the image's size")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(size[1], size[0]).T


def _polygons(polygons: Sequence[Any], size: Size) -> Mask:
    """Return the pixels within any of the polygons, each given as x, y, x, y, ..."""
    mask = np.zeros(size, np.uint8)
    for polygon in polygons:
        points = np.array(polygon, np.float64)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
            raise ValueError("a polygon needs at least three corners, each with x and y")
        corners = np.clip(points.reshape(-1, 1, 2), -(2.0**15), 2.0**15)
        cv2.fillPoly(mask, [np.rint(corners - 0.5).astype(np.int32)], 1)
    return mask.astype(bool)


def _require_size(path: Path, found: tuple[int, ...], size: Size) -> None:
    if tuple(found) != tuple(size):
        raise InputError(
            f"{path} has masks of the size {tuple(found)} (height, width), but the video's frames "
            f"are {tuple(size)}: export them at the frames' size"
        )
