"""YouTube-VOS: unannotated frames, objects that appear later, and frames that are saved."""

import json

import pytest

from s3_jax.benchmarks.datasets import BENCHMARKS
from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.errors import InputError
from tests.benchmarks.benchmark_files import make_youtube, numbered


def videos(root, options=LayoutConfig(), year=2019):  # noqa: B008
    return BENCHMARKS[f"youtubevos{year}-val"].list_videos(root, options)


def test_all_frames_are_run_and_listed_ones_saved(tmp_path):
    make_youtube(tmp_path)
    for year in (2018, 2019):
        first, second = videos(tmp_path, year=year)
        assert (first.name, second.name) == ("a1", "b2")
        assert (first.num_frames, first.all_masks) == (11, True)
        assert first.saved == {"00000", "00005", "00010"}
        masks = first.open_masks(first.open_frames().frame_names)
        given = {i: m.object_ids for i in range(11) if (m := masks.read(i))}
        assert given == {0: (1,), 5: (2,)}


def test_without_all_frames_the_sparse_ones_are_run(tmp_path, caplog):
    make_youtube(tmp_path)
    (tmp_path / "all_frames").rename(tmp_path / "elsewhere")
    assert [v.num_frames for v in videos(tmp_path)] == [3, 3]
    assert "every fifth frame only" in caplog.text
    options = LayoutConfig(images="elsewhere/valid_all_frames/JPEGImages")
    assert [v.num_frames for v in videos(tmp_path, options)] == [11, 11]


def test_the_split_itself_may_be_given_and_masks_be_limited(tmp_path):
    make_youtube(tmp_path)
    split = tmp_path / "one.txt"
    split.write_text("b2\n")
    options = LayoutConfig(sequences=split, rule="first_of_each")
    (video,) = videos(tmp_path / "valid", options)
    assert (video.name, video.num_frames, video.all_masks) == ("b2", 11, False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda meta: meta["videos"].update(c3={"objects": {}}), "c3 has no images"),
        (
            lambda meta: meta["videos"]["a1"]["objects"]["1"]["frames"].append("00099"),
            "lists 1 frames of a1 that have no image: 00099",
        ),
        (lambda meta: meta.pop("videos"), "is not a meta.json of YouTube-VOS"),
    ],
)
def test_a_meta_file_that_does_not_fit(tmp_path, change, message):
    path = make_youtube(tmp_path) / "valid/meta.json"
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))
    with pytest.raises(InputError, match=message):
        videos(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="cannot read the meta file"):
        videos(tmp_path)


def test_masks_of_frames_that_are_not_there(tmp_path):
    make_youtube(tmp_path)
    folder = tmp_path / "valid/Annotations/a1"
    (folder / "00005.png").rename(folder / "00077.png")
    with pytest.raises(InputError, match=r"no frame is named like 00077\.png"):
        videos(tmp_path)[0].open_masks(numbered(11))
