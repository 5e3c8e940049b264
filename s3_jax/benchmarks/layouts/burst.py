"""BURST: frames/<split>/<source>/<video>, and masks as text in a JSON file.

The file <split>/first_frame_annotations.json holds {"sequences": [...]}, each with `dataset`,
`seq_name`, `width`, `height`, `annotated_image_paths` and `segmentations`: for each annotated frame
a dictionary from track id to {"rle": text}.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.benchmarks.layouts.folders import chosen_names, existing, frame_names
from s3_jax.errors import InputError, listed, reason
from s3_jax.limits import require_within
from s3_jax.media.image_files import natural_key
from s3_jax.media.json_files import read_json
from s3_jax.media.mask_files import Mask, MaskEncoding
from s3_jax.media.output_paths import inside
from s3_jax.media.palette import voc_palette
from s3_jax.media.rle import decode_rle
from s3_jax.media.video_files import VideoSource, open_video
from s3_jax.segmentation.run_folder import fingerprint
from s3_jax.segmentation.video import MaskSource

Sequences = dict[str, dict[str, Any]]
NEEDED = ("dataset", "seq_name", "width", "height", "annotated_image_paths", "segmentations")


def annotation_file(data_dir: Path, config: LayoutConfig, split: str) -> Path:
    """Return the path of the annotation file of a split.

    Raises:
      InputError: the file does not exist.
    """
    name = f"{split}/first_frame_annotations.json"
    usual = (name, f"annotations/{name}", "first_frame_annotations.json")
    given = [config.annotations] if config.annotations else usual
    return existing(data_dir, given, "the file of masks")


def list_burst_videos(data_dir: Path, config: LayoutConfig, *, split: str) -> "list[BurstVideo]":
    """Return the videos of a split.

    Results are saved for the annotated frames, and the first mask of each track is used.

    Raises:
      InputError: frames, masks or videos are missing, or the file has another split or format.
    """
    if config.reading is not None:
        raise InputError(
            "--threshold, --background and --objects apply only to masks that are image files, "
            "which BURST's are not: omit these flags"
        )
    path = annotation_file(data_dir, config, split)
    sequences = read_sequences(path, split)
    usual = (f"frames/{split}", f"images/{split}", f"{split}/frames")
    given = [config.images] if config.images else usual
    images = existing(data_dir, given, "the directory of frames")
    names = chosen_names(config.sequences, list(sequences), path)
    videos = [_video(path, sequences[name], images / name, config.rule == "all") for name in names]
    missing = [
        f"{video.images} lacks {len(video.saved - frames)} of its {len(video.saved)} annotated "
        f"frames, the first {min(video.saved - frames, key=natural_key)}"
        for video in videos
        if not video.saved <= (frames := frozenset(frame_names(video.images)))
    ]
    if missing:
        raise InputError(listed(missing))
    return videos


def read_sequences(path: Path, split: str | None = None) -> Sequences:
    """Read the sequences of an annotation file by name, `<source>/<video>`.

    Raises:
      InputError: the file is missing, or has another format or split.
    """
    values = read_annotations(path)
    found = values.get("split", split)
    if split is not None and found != split:
        raise InputError(f"{path} is of the split {found!r}, not {split!r}: give the other file")
    return {f"{s['dataset']}/{s['seq_name']}": s for s in values["sequences"]}


def read_annotations(path: Path) -> dict[str, Any]:
    """Return the whole content of an annotation file; errors are those of `read_sequences`."""
    try:
        values = read_json(path)
        sequences = values["sequences"]
        lacking = {key for s in sequences for key in NEEDED if key not in s}
        uneven = [s["seq_name"] for s in sequences if not lacking
                  and len(s["segmentations"]) != len(s["annotated_image_paths"])]  # fmt: skip
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is not an annotation file of BURST ({type(error).__name__}: {reason(error)})"
        ) from error
    if lacking:
        raise InputError(f"{path}: sequences lack {sorted(lacking)}")
    for sequence in sequences:
        _refuse_hostile(path, sequence)
    if uneven:
        raise InputError(f"{path}: {uneven[0]} has not as many segmentations as annotated frames")
    return values


def _refuse_hostile(path: Path, sequence: Mapping[str, Any]) -> None:
    """Raise an InputError for names that leave a directory, and for frames beyond the budget."""
    for part in (str(sequence["dataset"]), str(sequence["seq_name"])):
        inside(Path(), part, path)
    sides = (sequence["height"], sequence["width"])
    if not all(type(side) is int and 0 < side < 2**31 for side in sides):
        raise InputError(f"{path}: {sequence['seq_name']} has no height and width in pixels")
    pixels = sides[0] * sides[1] / 1e6
    require_within("megapixels", pixels, f"{path}: {sequence['seq_name']} has large frames")


@dataclasses.dataclass(frozen=True)
class BurstVideo:
    """A sequence of the annotation file (see `BenchmarkVideo`)."""

    name: str
    images: Path
    source: Path
    size: tuple[int, int]
    tracks: Mapping[str, Mapping[str, Any]]
    num_frames: int
    all_masks: bool = False
    first_frame_only: bool = False

    @property
    def saved(self) -> frozenset[str]:
        return frozenset(self.tracks)

    def open_frames(self) -> VideoSource:
        return open_video(self.images)

    def open_masks(self, frame_names: Sequence[str] | None) -> MaskSource:
        return BurstMasks(self, frame_names or ())

    def fingerprint(self) -> str:
        return fingerprint([*frame_names(self.images), json.dumps(self.tracks)])


class BurstMasks:
    """The masks of a sequence; overlapping tracks are painted in the order of their ids."""

    def __init__(self, video: BurstVideo, frame_names: Sequence[str]):
        self._video = video
        self._names = list(frame_names)
        self.path = video.source
        ids = [int(track) for tracks in video.tracks.values() for track in tracks]
        if not ids or min(ids) < 1:
            raise InputError(f"{video.source}: {video.name} needs masks with track ids from 1 on")
        large = max(ids) > 255
        palette = MaskEncoding("palette", voc_palette().tobytes())
        self._encoding = MaskEncoding("rgb") if large else palette
        self.first = self._mask(next(name for name, tracks in video.tracks.items() if tracks))

    def read(self, frame_index: int) -> Mask | None:
        name = self._names[frame_index]
        return self._mask(name) if self._video.tracks.get(name) else None

    def _mask(self, name: str) -> Mask:
        ids = np.zeros(self._video.size, np.int32)
        for track, entry in sorted(self._video.tracks[name].items(), key=lambda item: int(item[0])):
            try:
                ids[decode_rle(entry["rle"], self._video.size)] = int(track)
            except (KeyError, TypeError, InputError) as error:
                raise InputError(
                    f"{self.path}: {self._video.name}, frame {name}, track {track}: {reason(error)}"
                ) from error
        return Mask(self.path, ids, self._encoding)


def _video(path: Path, sequence: Mapping[str, Any], images: Path, all_masks: bool) -> BurstVideo:
    stems = [Path(name).stem for name in sequence["annotated_image_paths"]]
    tracks = dict(zip(stems, sequence["segmentations"], strict=True))
    name = f"{sequence['dataset']}/{sequence['seq_name']}"
    size = (int(sequence["height"]), int(sequence["width"]))
    return BurstVideo(name, images, path, size, tracks, len(frame_names(images)), all_masks)
