"""Submissions to benchmark servers, made from a directory of result masks."""

import functools
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from s3_jax.benchmarks.layouts.burst import BurstVideo, read_annotations
from s3_jax.benchmarks.layouts.video import BenchmarkVideo
from s3_jax.errors import InputError, listed
from s3_jax.files import replacing
from s3_jax.media.image_files import natural_key, shortened
from s3_jax.media.mask_files import MaskEncoding, read_mask
from s3_jax.media.output_paths import inside
from s3_jax.media.rle import encode_rle

# A zip with the videos at its top level or inside Annotations/, or one JSON with masks as text.
Package = Literal["videos", "annotations", "burst"]
_TIME = (1980, 1, 1, 0, 0, 0)


def package_path(output: Path, package: Package) -> Path:
    """Return the path of the file that `write_package` writes."""
    return output / ("predictions.json" if package == "burst" else "submission.zip")


def write_package(
    package: Package, output: Path, masks: Path, videos: Sequence[BenchmarkVideo]
) -> Path:
    """Pack the masks of all videos into a file; the same masks give the same bytes.

    Args:
      masks: a directory with a folder of masks for each video.

    Raises:
      InputError: masks are missing; the message lists them, one video per line.
    """
    path = package_path(output, package)
    frames = result_frames(masks, videos)
    if package == "burst":
        _write_burst(path, masks, [v for v in videos if isinstance(v, BurstVideo)])
    else:
        _write_zip(path, masks, frames, "Annotations/" if package == "annotations" else "")
    return path


def result_frames(masks: Path, videos: Sequence[BenchmarkVideo]) -> dict[str, list[str]]:
    """Return the names of the result frames of every video, after checking that all exist.

    Raises:
      InputError: masks are missing; the message lists them, one video per line.
    """
    frames, problems = {}, []
    for video in videos:
        folder = inside(masks, video.name, "the list of videos")
        found = {p.stem for p in folder.glob("*.png") if not p.name.startswith(".")}
        wanted = found if video.saved is None else video.saved
        missing = sorted(wanted - found, key=natural_key)
        if missing or not found:
            problems.append(f"{folder} lacks {len(missing)} masks: {shortened(missing)}")
        frames[video.name] = sorted(wanted, key=natural_key)
    if problems:
        raise InputError(listed(problems))
    return frames


def _write_zip(path: Path, masks: Path, frames: dict[str, list[str]], inside: str) -> None:
    """Store the PNG files without further compression, and with constant time stamps."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, stems in frames.items():
            for stem in stems:
                entry = zipfile.ZipInfo(f"{inside}{name}/{stem}.png", _TIME)
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, (masks / name / f"{stem}.png").read_bytes())


def _write_burst(path: Path, masks: Path, videos: Sequence[BurstVideo]) -> None:
    """Write a copy of the annotation file with the predicted masks of every track, if not empty."""
    values = read_annotations(videos[0].source)
    of_name = {video.name: video for video in videos}
    sequences = []
    for sequence in values["sequences"]:
        video = of_name.get(f"{sequence['dataset']}/{sequence['seq_name']}")
        if video is None:
            continue
        encoding: MaskEncoding = video.open_masks(None).first.encoding
        folder = masks / video.name
        frames = [Path(name).stem for name in sequence["annotated_image_paths"]]
        predicted = [_tracks(folder / f"{frame}.png", encoding) for frame in frames]
        sequences.append({**sequence, "segmentations": predicted})
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({**values, "sequences": sequences}))


def _tracks(path: Path, encoding: MaskEncoding) -> dict[str, dict[str, Any]]:
    mask = read_mask(path, encoding=encoding)
    is_track: Callable[[int], Any] = functools.partial(np.equal, mask.ids)
    return {
        str(i): {"rle": encode_rle(is_track(i)), "is_gt": False, "score": 1.0}
        for i in mask.object_ids
    }
