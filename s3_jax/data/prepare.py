"""Check every file of a data set, and store its usable videos as ArrayRecord files.

The result for each video is logged, so an interrupted run resumes where it stopped. The records are
written in one pass under a temporary name.
"""

import dataclasses
import io
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from absl import logging
from PIL import Image

from s3_jax.data import folders
from s3_jax.data.decoding import decode_foreground, decode_ids, decode_image, without_void
from s3_jax.data.records import Entry, VideoRecord
from s3_jax.data.sampling import object_ids, relabel
from s3_jax.data.tfds_builder import VideoBuilder
from s3_jax.data.videos import Ids, read_bytes
from s3_jax.errors import InputError, reason
from s3_jax.media.json_files import parse_json

VERSION = str(VideoBuilder.VERSION)
# Applies a function to weighted items, and yields (index, result) as items finish.
Spread = Callable[
    [Callable[["Item"], "Check"], Sequence["Item"], Sequence[int]], Iterable[tuple[int, "Check"]]
]
LARGEST_ID = 254  # in the stored 8-bit masks, where 255 is void


@dataclasses.dataclass(frozen=True)
class Item:
    """A video, or a photograph as a video of one frame: the image and mask file of each frame."""

    name: str
    frames: tuple[tuple[Path, Path], ...]
    unannotated: int
    mask_kind: Literal["ids", "binary", "foreground"]

    def read_mask(self, index: int) -> Ids:
        """Return the object ids of a frame; errors are those of `videos.Video.ids`."""
        path = self.frames[index][1]
        encoded = read_bytes(path)
        if self.mask_kind == "foreground":
            return decode_foreground(encoded, str(path))
        return without_void(decode_ids(encoded, str(path)), self.mask_kind == "binary")


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of checking a video.

    fingerprint: digest of the files' sizes and modification times.
    kept: indices of usable frames.
    empty: indices of usable frames that show no object.
    ids: all object ids.
    problems: one line for each frame left out.
    """

    name: str
    fingerprint: str
    kept: list[int]
    empty: list[int]
    ids: list[int]
    problems: list[str]

    @property
    def usable(self) -> bool:
        """True if at least one frame shows an object and all ids can be stored."""
        return len(self.kept) > len(self.empty) and len(self.ids) <= LARGEST_ID


def list_videos(
    path: Path, images: str = "", annotations: str = "", subset: str = "", binary: bool = False
) -> list[Item]:
    """Return the videos of a folder.

    For arguments and errors see `data.config.VideoFolderConfig` and `folders.annotated_videos`.
    """
    videos = folders.annotated_videos(path, images, annotations, subset)
    return [_item(video, binary) for video in videos]


def list_photographs(path: Path) -> list[Item]:
    """Return the photographs of a folder; for errors see `folders.image_mask_pairs`."""
    pairs = folders.image_mask_pairs(path)
    names = [str(image.relative_to(path).with_suffix("")) for image, _ in pairs]
    return [Item(n, (pair,), 0, "foreground") for n, pair in zip(names, pairs, strict=True)]


def check(item: Item) -> Check:
    """Decode every image and mask of a video, and return all problems."""
    kept: list[int] = []
    empty: list[int] = []
    ids: set[int] = set()
    problems: list[str] = []
    size: tuple[int, ...] | None = None
    for index in range(len(item.frames)):
        try:
            mask = _sound_mask(item, index, size)
        except InputError as error:
            problems.append(str(error))
            continue
        size = mask.shape
        present = object_ids(mask)
        kept.append(index)
        ids.update(present)
        if not present:
            empty.append(index)
    if len(ids) > LARGEST_ID:
        problems.append(f"{item.name} has {len(ids)} objects, more than {LARGEST_ID}")
    return Check(item.name, _fingerprint(item), kept, empty, sorted(ids), problems)


def check_all(
    items: Sequence[Item],
    log: Path,
    workers: int,
    done: Callable[[], object] = lambda: None,
    spread: Spread | None = None,
) -> list[Check]:
    """Check all videos and return the results in order, skipping checks found in the log.

    Args:
      done: called after each video, to show progress.
      spread: runs the checks elsewhere; by default they run in `workers` threads.
    """
    known = _read_log(log)
    checks = {i: known[x.name] for i, x in enumerate(items) if _still_holds(known.get(x.name), x)}
    left = [i for i in range(len(items)) if i not in checks]
    for _ in checks:
        done()
    with log.open("a") as file, ThreadPoolExecutor(workers) as pool:
        threads = lambda f, items, _: enumerate(pool.map(f, items))  # noqa: E731
        chosen = [items[i] for i in left]
        for place, found in (spread or threads)(check, chosen, [len(x.frames) for x in chosen]):
            file.write("\n" + json.dumps(dataclasses.asdict(found)))
            file.flush()
            checks[left[place]] = found
            done()
    return [checks[i] for i in range(len(items))]


def write_records(name: str, output: Path, items: Sequence[Item], checks: Sequence[Check]) -> Path:
    """Store the usable videos as a TFDS data set and return its directory.

    Args:
      name: name of the data set.
      output: directory in which the data set's own directory is created.
      items: all videos of the data set.
      checks: their results from `check_all`, in the same order.

    Raises:
      InputError: no video is usable, or the disk is full.
      OSError: permission is missing.
    """
    pairs = [pair for pair in zip(items, checks, strict=True) if pair[1].usable]
    if not pairs:
        raise InputError(f"{name}: no video is usable; see the report")
    entries = [_entry(found) for _, found in pairs]
    for stale in (output / name).glob("incomplete.*"):  # left by a run that was killed
        shutil.rmtree(stale)
    builder = VideoBuilder(name, output, entries, lambda: (_record(*pair) for pair in pairs))
    try:
        return builder.write()
    except RuntimeError as error:  # ArrayRecord raises it for any disk problem
        for incomplete in (output / name).glob("incomplete.*"):
            shutil.rmtree(incomplete)
        raise InputError(
            f"{output / name} cannot be written ({reason(error)}): make room and run it again"
        ) from error


def report(items: Sequence[Item], checks: Sequence[Check]) -> dict[str, Any]:
    """Return counts and problems as JSON values, which can also be displayed."""
    unusable = [found.name for found in checks if not found.usable]
    return {
        "videos": len(items),
        "videos_usable": len(items) - len(unusable),
        "videos_left_out": unusable,
        "frames": sum(len(item.frames) for item in items),
        "frames_usable": sum(len(found.kept) for found in checks if found.usable),
        "frames_without_object": sum(len(found.empty) for found in checks if found.usable),
        "frames_without_annotation": sum(item.unannotated for item in items),
        "problems": [problem for found in checks for problem in found.problems],
    }


def empty_masks(items: Sequence[Item], checks: Sequence[Check]) -> dict[str, list[str]]:
    """Map each video to the file stems of its masks without objects (for `empty_masks.read`)."""
    return {
        item.name: [item.frames[index][1].stem for index in found.empty]
        for item, found in zip(items, checks, strict=True)
        if found.empty
    }


def _item(video: folders.AnnotatedVideo, binary: bool) -> Item:
    frames = tuple((video.images / image, video.annotations / mask) for image, mask in video.frames)
    unannotated = video.num_images - len(frames)
    return Item(video.name, frames, unannotated, "binary" if binary else "ids")


def _sound_mask(item: Item, index: int, size: tuple[int, ...] | None) -> Ids:
    """Return a mask whose size matches its image and the earlier masks (`size`).

    Raises:
      InputError: the sizes differ, or one of the files cannot be read.
    """
    path, mask_path = item.frames[index]
    image = decode_image(read_bytes(path), str(path))
    mask = item.read_mask(index)
    for shape, what in ((image.shape[:2], path), (size, "the first frame of its video")):
        if shape is not None and mask.shape != shape:
            raise InputError(
                f"{mask_path} is {mask.shape[1]}x{mask.shape[0]}, but {what} is "
                f"{shape[1]}x{shape[0]}"
            )
    return mask


def _still_holds(found: Check | None, item: Item) -> bool:
    return found is not None and found.fingerprint == _fingerprint(item)


def _fingerprint(item: Item) -> str:
    """Return a string that changes when any file of the video changes."""
    stats = [file.stat() for pair in item.frames for file in pair if file.exists()]
    total = sum(s.st_size for s in stats)
    newest = max((s.st_mtime_ns for s in stats), default=0)
    return f"{item.mask_kind} {len(stats)} {total} {newest}"


def _read_log(log: Path) -> dict[str, Check]:
    """Read the results of an earlier run; the last line may be truncated."""
    known: dict[str, Check] = {}
    if not log.exists():
        return known
    for line in filter(None, log.read_text().splitlines()):
        try:
            found = Check(**parse_json(line))
        except (ValueError, TypeError) as error:
            logging.warning("%s: ignored an unreadable line: %s", log, reason(error))
            continue
        known[found.name] = found
    return known


def _entry(found: Check) -> Entry:
    """Return the index entry of a video, with its frames renumbered if some were left out."""
    place = {index: number for number, index in enumerate(found.kept)}
    return Entry(found.name, len(found.kept), frozenset(place[index] for index in found.empty))


def _record(item: Item, found: Check) -> VideoRecord:
    frames = [read_bytes(item.frames[index][0]) for index in found.kept]
    masks = [_encoded(item.read_mask(index), found.ids) for index in found.kept]
    return VideoRecord(item.name, frames, masks)


def _encoded(mask: Ids, ids: Sequence[int]) -> bytes:
    """Encode the ids as a grey PNG, renumbered 1, 2, ... if they do not fit into 8 bits."""
    small = max(ids, default=0) <= LARGEST_ID
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) if small else relabel(mask, ids)).save(buffer, "PNG")
    return buffer.getvalue()
