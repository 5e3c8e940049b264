"""Submissions to servers: layout inside zips, masks as text."""

import json
import zipfile

import numpy as np
import pytest

from s3_jax.benchmarks.datasets import BENCHMARKS
from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.benchmarks.packaging import write_package
from s3_jax.errors import InputError
from s3_jax.media.mask_files import read_mask
from s3_jax.media.rle import decode_rle
from tests.benchmarks.benchmark_files import (
    SIZE,
    make_burst,
    make_davis,
    make_youtube,
    mask,
    numbered,
    write_masks,
)
from tests.benchmarks.sequences import RGB


def _videos(name, root):
    return BENCHMARKS[name].list_videos(root, LayoutConfig())


def _names(path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return archive.namelist()


def test_videos_at_the_top_of_the_zip(tmp_path):
    make_davis(tmp_path / "data", {"bear": 2, "cat": 1}, split="test-dev")
    for name, count in (("bear", 2), ("cat", 1), ("stranger", 1)):
        masks = {frame: mask(1) for frame in numbered(count)}
        folder = write_masks(tmp_path / "Annotations" / name, masks)
        (folder / ".00009.png").write_bytes(b"hidden")
    videos = _videos("davis2017-test-dev", tmp_path / "data")
    path = write_package("videos", tmp_path, tmp_path / "Annotations", videos)
    assert path == tmp_path / "submission.zip"
    assert _names(path) == ["bear/00000.png", "bear/00001.png", "cat/00000.png"]
    first = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        stored = archive.read("cat/00000.png")
    assert stored == (tmp_path / "Annotations/cat/00000.png").read_bytes()
    write_package("videos", tmp_path, tmp_path / "Annotations", videos)
    assert path.read_bytes() == first


def test_annotations_inside_the_zip_and_saved_frames_only(tmp_path):
    make_youtube(tmp_path / "data", ["a1"])
    write_masks(tmp_path / "Annotations/a1", {frame: mask(1) for frame in numbered(11)})
    videos = _videos("youtubevos2019-val", tmp_path / "data")
    path = write_package("annotations", tmp_path, tmp_path / "Annotations", videos)
    assert _names(path) == [f"Annotations/a1/{frame}.png" for frame in numbered(3, 5)]


def test_missing_masks_are_listed_and_nothing_is_written(tmp_path):
    make_youtube(tmp_path / "data")
    write_masks(tmp_path / "Annotations/a1", {"00000": mask(1), "00005": mask(1)})
    videos = _videos("youtubevos2019-val", tmp_path / "data")
    with pytest.raises(InputError) as error:
        write_package("annotations", tmp_path, tmp_path / "Annotations", videos)
    assert "a1 lacks 1 masks: 00010" in str(error.value)
    assert "b2 lacks 3 masks" in str(error.value)
    assert not (tmp_path / "submission.zip").exists()


@pytest.mark.parametrize("large_id", [7, 70_000])
def test_burst_predictions(tmp_path, large_id):
    data = make_burst(tmp_path / "data", large_id=large_id)
    videos = _videos("burst-val", data)
    for video in videos:
        first = video.open_masks([f"frame{i:04d}" for i in range(7)]).first
        masks = {name: np.zeros(SIZE, np.int32) for name in sorted(video.saved)}
        masks["frame0003"][:5, :7], masks["frame0003"][9:, 8:] = 3, large_id
        masks["frame0005"][2:] = large_id
        write_masks(tmp_path / "Annotations" / video.name, masks, first.encoding)
    path = write_package("burst", tmp_path, tmp_path / "Annotations", videos)
    assert path == tmp_path / "predictions.json"
    values = json.loads(path.read_text())
    given = json.loads((data / "val/first_frame_annotations.json").read_text())
    assert (values["split"], values["categories"]) == ("val", given["categories"])
    assert len(values["sequences"]) == 2
    for sequence, source in zip(values["sequences"], given["sequences"], strict=True):
        kept = {k: v for k, v in sequence.items() if k != "segmentations"}
        assert kept == {k: v for k, v in source.items() if k != "segmentations"}
        frames = sequence["segmentations"]
        # An object that is not predicted has no entry: the evaluation asks for that.
        assert [sorted(f) for f in frames] == [[], sorted(["3", str(large_id)]), [str(large_id)]]
        folder = tmp_path / "Annotations" / sequence["dataset"] / sequence["seq_name"]
        for tracks, name in zip(frames, ("frame0001", "frame0003", "frame0005"), strict=True):
            encoding = RGB if large_id > 255 else None
            written = read_mask(folder / f"{name}.png", encoding=encoding).ids
            for track, entry in tracks.items():
                decoded = decode_rle(entry["rle"], SIZE)
                assert np.array_equal(decoded, written == int(track))
