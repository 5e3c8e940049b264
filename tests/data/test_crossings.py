"""Clips in which objects cross: it is known which hides which, and identities can be measured."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3_jax.benchmarks.identity import identity_shares, kept_identities
from s3_jax.data.config import DataConfig, ImageAugmentationConfig, ImageFolderConfig
from s3_jax.data.crossings import crossing_clips
from s3_jax.errors import InputError

SIDE = 64


def discs(folder: Path, radius: int = 16, frames: int = 12) -> DataConfig:
    """Pictures of a disc each, of a colour of its own."""
    y, x = np.mgrid[:SIDE, :SIDE]
    inside = (x - 32) ** 2 + (y - 32) ** 2 < radius**2
    folder.mkdir()
    for number in range(4):
        picture = np.where(inside[..., None], np.uint8(60 * number), np.uint8(255))
        Image.fromarray(np.repeat(picture, 3, axis=2)).save(folder / f"{number}.jpg")
        Image.fromarray(inside.astype(np.uint8) * 255).save(folder / f"{number}.png")
    still = ImageAugmentationConfig(walk=0.02, scale=(0.9, 1.1), clip_scale=(0.9, 1.1), bend=0.0)
    return DataConfig(sources=(ImageFolderConfig(str(folder)),), crop=SIDE, num_frames=frames,
                      max_objects=1, image=still)  # fmt: skip


def test_objects_show_first_and_one_is_hidden_and_shows_again(tmp_path: Path) -> None:
    clips = list(crossing_clips(discs(tmp_path / "discs"), count=4))
    assert [clip.num_objects for clip in clips] == [2, 3, 2, 3]
    for clip in clips:
        ids = range(1, clip.num_objects + 1)
        areas = np.array([[(mask == i).sum() for i in ids] for mask in clip.masks])
        assert (areas[0] >= 0.01 * SIDE**2).all()
        assert (areas.min(axis=0) < 2 / 3 * areas.max(axis=0)).any()


def test_equal_seeds_give_equal_clips_and_others_do_not(tmp_path: Path) -> None:
    data = discs(tmp_path / "discs")
    first, again = (list(crossing_clips(data, count=2)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_array_equal(one.masks, other.masks)
    assert not np.array_equal(first[0].masks, first[1].masks)


def test_objects_too_small_to_cross_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no 2 objects of .*discs.* cross"):
        list(crossing_clips(discs(tmp_path / "discs", radius=1, frames=2), count=1))


def test_an_object_keeps_its_identity_where_its_own_mask_covers_most() -> None:
    truth = np.array([[1, 1, 1, 2, 2, 2, 3, 3, 0]])
    found = np.array([[1, 1, 2, 1, 1, 2, 0, 0, 3]])
    assert kept_identities(truth, found) == {1: True, 2: False, 3: False}
    assert kept_identities(truth, truth) == {1: True, 2: True, 3: True}


def test_shares_leave_out_the_first_frame(tmp_path: Path) -> None:
    truth = [[[1, 2]], [[1, 2]], [[2, 1]]]
    found = [[[2, 1]], [[1, 2]], [[2, 2]]]
    for name, masks in (("truth", truth), ("found", found)):
        folder = tmp_path / name / "video"
        folder.mkdir(parents=True)
        for index, mask in enumerate(masks):
            Image.fromarray(np.array(mask, np.uint8)).save(folder / f"{index:05d}.png")
    assert identity_shares(tmp_path / "truth", tmp_path / "found") == {"video": 0.75}
    (tmp_path / "found" / "video" / "00002.png").unlink()
    with pytest.raises(InputError, match=r"00002\.png"):
        identity_shares(tmp_path / "truth", tmp_path / "found")
