"""BURST: masks as text in one JSON, videos in nested folders, long ids."""

import json

import numpy as np
import pytest

from s3_jax.benchmarks.datasets import BENCHMARKS
from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.errors import InputError
from tests.benchmarks.benchmark_files import make_burst, mask


def videos(root, split="val", options=LayoutConfig()):  # noqa: B008
    return BENCHMARKS[f"burst-{split}"].list_videos(root, options)


@pytest.mark.parametrize("split", ["val", "test"])
def test_annotated_frames_are_saved_and_tracks_keep_their_ids(tmp_path, split):
    make_burst(tmp_path, split)
    cat, _ = videos(tmp_path, split)
    assert (cat.name, cat.num_frames, cat.all_masks) == ("LaSOT/cat_1", 7, False)
    assert cat.saved == {"frame0001", "frame0003", "frame0005"}
    masks = cat.open_masks(cat.open_frames().frame_names)
    assert [masks.read(i).object_ids if masks.read(i) else () for i in range(7)] == [
        (), (3,), (), (7,), (), (), ()
    ]  # fmt: skip
    assert np.array_equal(masks.first.ids, np.where(mask(1) == 1, 3, 0))
    assert masks.first.encoding.kind == "palette"


def test_ids_beyond_a_palette_are_kept(tmp_path):
    make_burst(tmp_path, large_id=70_000)
    masks = videos(tmp_path)[0].open_masks([f"frame{i:04d}" for i in range(7)])
    assert masks.first.encoding.kind == "rgb"
    assert masks.read(3).object_ids == (70_000,)


def test_annotations_may_lie_elsewhere(tmp_path):
    make_burst(tmp_path)
    (tmp_path / "val").rename(tmp_path / "other")
    options = LayoutConfig(annotations="other/first_frame_annotations.json", rule="all")
    assert [v.all_masks for v in videos(tmp_path, options=options)] == [True, True]
    split = tmp_path / "one.txt"
    split.write_text("BDD/b1c9\n")
    options = LayoutConfig(sequences=split, annotations="other/first_frame_annotations.json")
    assert [v.name for v in videos(tmp_path, options=options)] == ["BDD/b1c9"]


def _change(root, change):
    path = root / "val/first_frame_annotations.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(split="test"), "is of the split 'test', not 'val'"),
        (lambda v: v.pop("sequences"), "is not an annotation file of BURST"),
        (lambda v: v["sequences"][0].pop("width"), r"sequences lack \['width'\]"),
        (lambda v: v["sequences"][0]["segmentations"].pop(), "cat_1 has not as many segm"),
        (
            lambda v: v["sequences"][1]["annotated_image_paths"].__setitem__(2, "f9.jpg"),
            r"BDD/b1c9 lacks 1 of its 3 annotated frames, the first f9",
        ),
    ],
)
def test_files_that_do_not_fit(tmp_path, change, message):
    make_burst(tmp_path)
    _change(tmp_path, change)
    with pytest.raises(InputError, match=message):
        videos(tmp_path)


@pytest.mark.parametrize("rle", ["d0", "~", None])
def test_damaged_masks_are_named(tmp_path, rle):
    make_burst(tmp_path)
    _change(tmp_path, lambda v: v["sequences"][0]["segmentations"][0]["3"].update(rle=rle))
    with pytest.raises(InputError, match=r"LaSOT/cat_1, frame frame0001, track 3: "):
        videos(tmp_path)[0].open_masks([])


def test_a_sequence_without_masks(tmp_path):
    make_burst(tmp_path)
    _change(tmp_path, lambda v: v["sequences"][0].update(segmentations=[{}, {}, {}]))
    with pytest.raises(InputError, match="LaSOT/cat_1 needs masks with track ids from 1 on"):
        videos(tmp_path)[0].open_masks([])
