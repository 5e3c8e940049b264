"""LVOS and any other folders."""

import numpy as np
import pytest
from PIL import Image

from s3_jax.benchmarks.datasets import BENCHMARKS
from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.errors import InputError
from tests.benchmarks.benchmark_files import mask, numbered, write_frames, write_masks
from tests.media.videos import moving_pictures, write_video_file


def videos(name, root, options=LayoutConfig()):  # noqa: B008
    return BENCHMARKS[name].list_videos(root, options)


PLACES = [("lvos-val", "val"), ("lvos-val", "valid"), ("lvos-test", "test"), ("lvos-test", ".")]


@pytest.mark.parametrize(("name", "below"), PLACES)
def test_lvos_takes_the_first_mask_of_each_object(tmp_path, name, below):
    write_frames(tmp_path / below / "JPEGImages/v1", numbered(4, digits=8))
    masks = {"00000000": mask(1), "00000002": mask(1, 2)}
    write_masks(tmp_path / below / "Annotations/v1", masks)
    (video,) = videos(name, tmp_path)
    assert (video.rule, video.all_masks) == ("first_of_each", False)
    assert video.saved == frozenset(numbered(4, digits=8))
    found = video.open_masks(video.open_frames().frame_names)
    assert found.read(2).object_ids == (1, 2)


def test_lvos_saves_frames_of_the_list_only(tmp_path):
    write_frames(tmp_path / "val/JPEGImages/v1", numbered(3, 5))
    write_frames(tmp_path / "all/v1", numbered(11))
    write_masks(tmp_path / "val/Annotations/v1", {"00000": mask(1)})
    (video,) = videos("lvos-val", tmp_path, LayoutConfig(images="all"))
    assert (video.num_frames, video.saved) == (11, frozenset(numbered(3, 5)))


def test_generic_videos_are_folders_or_files_and_masks_too(tmp_path):
    write_frames(tmp_path / "JPEGImages/cats", numbered(3))
    write_video_file(tmp_path / "JPEGImages/dogs.mp4", moving_pictures(4, 48, 64))
    write_masks(tmp_path / "Annotations/cats", {"00000": mask(1), "00002": mask(1, 3)})
    write_masks(tmp_path / "Annotations", {"dogs": mask(255, size=(48, 64))})
    cats, dogs = videos("generic", tmp_path)
    assert (cats.name, cats.num_frames, cats.saved, cats.all_masks) == ("cats", 3, None, False)
    assert dogs.open_frames().size == (48, 64)
    assert dogs.open_masks(None).first.object_ids == (255,)  # no id is void unless said
    cats, _ = videos("generic", tmp_path, LayoutConfig(rule="all"))
    assert cats.all_masks


def test_generic_places_and_problems(tmp_path):
    write_frames(tmp_path / "images/cats", numbered(2))
    write_masks(tmp_path / "masks/cats", {"00000": mask(1)})
    write_masks(tmp_path / "masks/bats", {"00000": mask(1)})
    with pytest.raises(InputError, match=r"masks/bats has no video in .*images"):
        videos("generic", tmp_path)
    write_masks(tmp_path / "masks", {"bats": np.ones((4, 4), np.uint8)})
    with pytest.raises(InputError, match=r"bats and bats.png would have the same results"):
        videos("generic", tmp_path)
    with pytest.raises(InputError, match="the directory of videos is not there"):
        videos("generic", tmp_path / "masks")
    with pytest.raises(InputError, match=r"looked for .*/nowhere"):
        videos("generic", tmp_path, LayoutConfig(annotations="nowhere"))


def test_fingerprints_tell_other_files(tmp_path):
    write_frames(tmp_path / "images/cats", numbered(2))
    write_masks(tmp_path / "masks/cats", {"00000": mask(1)})
    (video,) = videos("generic", tmp_path)
    before = video.fingerprint()
    assert before == video.fingerprint()
    write_masks(tmp_path / "masks/cats", {"00000": mask(2)})
    other_mask = video.fingerprint()
    write_frames(tmp_path / "images/cats", numbered(3))
    assert len({before, other_mask, video.fingerprint()}) == 3


def test_what_is_said_of_masks_settles_how_they_are_read(tmp_path):
    write_frames(tmp_path / "JPEGImages/cats", numbered(2))
    soft = np.kron(np.array([[0, 40, 90], [0, 180, 255]], np.uint8), np.ones((12, 12), np.uint8))
    (tmp_path / "Annotations/cats").mkdir(parents=True)
    Image.fromarray(soft).save(tmp_path / "Annotations/cats/00000.png")

    def first(**said):
        (video,) = videos("generic", tmp_path, LayoutConfig(**said))
        return video.open_masks(None).first

    assert first().object_ids == (40, 90, 180, 255)
    thresholded = first(threshold=128)
    assert len(thresholded.object_ids) == 1
    np.testing.assert_array_equal(thresholded.ids != 0, soft >= 128)
    assert len(first(objects=2).object_ids) == 2
    assert (first(background=255).ids == 0).sum() == (soft == 255).sum()
    with pytest.raises(InputError, match="BURST"):
        videos("burst-val", tmp_path, LayoutConfig(threshold=1))
