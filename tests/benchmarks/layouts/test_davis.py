"""DAVIS, MOSE and VOST folders: the videos that are listed, and their masks."""

import numpy as np
import pytest

from s3_jax.benchmarks.datasets import BENCHMARKS
from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.errors import InputError
from s3_jax.media.mask_files import read_mask
from tests.benchmarks.benchmark_files import make_davis, mask, numbered, write_frames, write_masks
from tests.benchmarks.sequences import RGB

DEFAULT = LayoutConfig()


def videos(name, root, options=DEFAULT):
    return BENCHMARKS[name].list_videos(root, options)


def test_split_file_names_the_videos_and_only_the_first_mask_is_used(tmp_path):
    make_davis(tmp_path, {"bear": 4, "bus": 3, "cat": 2}, listed=["cat", "bear"])
    found = videos("davis2017-val", tmp_path)
    assert [(v.name, v.num_frames, v.saved, v.all_masks) for v in found] == [
        ("cat", 2, None, False),
        ("bear", 4, None, False),
    ]
    source = found[1].open_frames()
    assert source.frame_names == numbered(4)
    masks = found[1].open_masks(source.frame_names)
    assert masks.first.object_ids == (1, 2)
    assert [masks.read(i) is None for i in range(4)] == [False, True, True, True]


@pytest.mark.parametrize(
    ("name", "below", "split"),
    [
        ("davis2017-val", "2017/trainval", "val"),
        ("davis2017-val", "trainval", "val"),
        ("davis2017-test-dev", "2017/test-dev", "test-dev"),
        ("davis2017-test-dev", "DAVIS", "test-dev"),
    ],
)
def test_places_where_davis_may_lie(tmp_path, name, below, split):
    make_davis(tmp_path / below, {"bear": 2}, split=split)
    assert [v.name for v in videos(name, tmp_path)] == ["bear"]


def test_davis_2016_has_one_object_and_lists_with_paths(tmp_path):
    make_davis(tmp_path, {"bear": 2, "cat": 2}, year="2016")
    (tmp_path / "ImageSets/2016/val.txt").unlink()
    lists = tmp_path / "ImageSets/480p"
    lists.mkdir()
    line = "/JPEGImages/480p/cat/{0}.jpg /Annotations/480p/cat/{0}.png\n"
    (lists / "val.txt").write_text(line.format("00000") + line.format("00001"))
    (video,) = videos("davis2016-val", tmp_path)
    assert video.name == "cat"
    assert video.open_masks(numbered(2)).first.object_ids == (255,)


def test_several_objects_become_one_for_davis_2016(tmp_path):
    make_davis(tmp_path, {"bear": 2})
    (video,) = videos("davis2016-val", tmp_path)
    masks = video.open_masks(numbered(2))
    given = read_mask(tmp_path / "Annotations/480p/bear/00000.png").ids
    assert np.array_equal(masks.first.ids, np.where(given > 0, 1, 0))
    assert np.array_equal(masks.read(0).ids, masks.first.ids)
    assert masks.read(1) is None


def test_void_pixels_are_background_but_not_in_colour_masks(tmp_path):
    for name, encoding in (("palette", None), ("colour", RGB)):
        write_frames(tmp_path / "valid/JPEGImages" / name, numbered(2))
        given = {"00000": mask(1, 255)}
        folder = tmp_path / "valid/Annotations" / name
        write_masks(folder, given, *([encoding] if encoding else []))
    ids = {v.name: v.open_masks(numbered(2)).first.object_ids for v in videos("mose-val", tmp_path)}
    assert ids == {"palette": (1,), "colour": (1, 255)}
    for void, expected in ((None, (1, 255)), (1, (255,))):
        found = videos("mose-val", tmp_path, LayoutConfig(void=void))
        masks = {v.name: v.open_masks(numbered(2)).first.object_ids for v in found}
        assert masks["palette"] == expected


def test_full_resolution_is_for_plus_settings(tmp_path):
    make_davis(tmp_path, {"bear": 2})
    write_frames(tmp_path / "JPEGImages/Full-Resolution/bear", numbered(2), (80, 128))
    (plain,) = videos("davis2017-val", tmp_path)
    (plus,) = videos("davis2017-val", tmp_path, LayoutConfig(full_resolution=True))
    assert (plain.open_frames().size, plus.open_frames().size) == ((40, 64), (80, 128))


def test_vost_lists_and_flags_for_other_places(tmp_path):
    write_frames(tmp_path / "JPEGImages_10fps/cut", numbered(3))
    write_frames(tmp_path / "JPEGImages/cut", numbered(2))
    write_masks(tmp_path / "Annotations/cut", {"00000": mask(1)})
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets/val.txt").write_text("cut\n")
    assert [v.num_frames for v in videos("vost-val", tmp_path)] == [2]
    options = LayoutConfig(images="JPEGImages_10fps", rule="all")
    (video,) = videos("vost-val", tmp_path, options)
    assert (video.num_frames, video.all_masks) == (3, True)


def test_without_a_list_all_videos_are_used_and_it_is_said(tmp_path, caplog):
    make_davis(tmp_path, {"bear": 2, "cat": 2}, listed=["cat"])
    (tmp_path / "ImageSets/2017/val.txt").unlink()
    assert [v.name for v in videos("davis2017-val", tmp_path)] == ["bear", "cat"]
    assert "there is no list" in caplog.text
    assert "all 2 videos" in caplog.text


def test_wrong_split_file(tmp_path):
    make_davis(tmp_path, {"bear": 2}, listed=["bear", "bears", "bus"])
    with pytest.raises(InputError, match=r"names 2 of 3 videos that are not in .*bears, bus; did"):
        videos("davis2017-val", tmp_path)
    other = tmp_path / "other.txt"
    other.write_text("lion\n")
    with pytest.raises(InputError, match=r"other.txt names 1 of 1 .* list of another split"):
        videos("davis2017-val", tmp_path, LayoutConfig(sequences=other))


def test_what_is_missing_is_listed(tmp_path):
    make_davis(tmp_path, {"bear": 2, "cat": 2, "dog": 2})
    for path in (tmp_path / "JPEGImages/480p/bear").iterdir():
        path.unlink()
    for path in (tmp_path / "Annotations/480p/dog").iterdir():
        path.unlink()
    with pytest.raises(InputError) as error:
        videos("davis2017-val", tmp_path)
    assert "2 problems" in str(error.value)
    assert "JPEGImages/480p/bear has no images" in str(error.value)
    assert "Annotations/480p/dog has no masks" in str(error.value)
    with pytest.raises(InputError, match="directory of images is not there: looked for"):
        videos("davis2017-val", tmp_path / "JPEGImages")


def test_no_mask_for_the_first_frame(tmp_path):
    make_davis(tmp_path, {"bear": 3})
    (tmp_path / "Annotations/480p/bear/00000.png").unlink()
    (video,) = videos("davis2017-val", tmp_path)
    with pytest.raises(InputError, match=r"no mask for the first frame, 00000: its first is 00001"):
        video.open_masks(numbered(3))
