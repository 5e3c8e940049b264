"""Hard clips: zooms, blur, occluders, objects that pass or leave, many instances."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3_jax.config import from_dict, to_dict
from s3_jax.data.augmentation import Zoom, sample_zoom, video_warp, zoomed
from s3_jax.data.blur import blur, path_kernel, sample_blurs
from s3_jax.data.config import (
    BlurConfig,
    DataConfig,
    VideoAugmentationConfig,
    VideoFolderConfig,
)
from s3_jax.data.merging import Clip, across, centre, hidden, moved, over
from s3_jax.data.sources import decode_instances, open_source
from s3_jax.data.warp import warp_labels
from s3_jax.errors import InputError

SIDE = 64


def disc(x: float, y: float, radius: float) -> np.ndarray:
    columns, rows = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    return ((columns - x) ** 2 + (rows - y) ** 2 < radius**2).astype(np.uint8)


def clip_of(x: float, y: float, radius: float, count: int = 9) -> Clip:
    mask = disc(x, y, radius)
    frames = np.repeat((mask * np.uint8(200))[None, ..., None], count, axis=0)
    return Clip(np.repeat(frames, 3, axis=3), np.repeat(mask[None], count, axis=0), 1)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_zoom_starts_from_nothing_and_ends_at_its_factor_and_place(factor: float) -> None:
    config = VideoAugmentationConfig(
        rotation=0, shear=0, flip=0, crop_area=(0.5, 0.5), crop_aspect=(1, 1)
    )
    warp = video_warp(np.random.default_rng(1), (SIDE, SIDE), SIDE, config)
    labels = disc(32, 32, 6)
    before = warp_labels(labels, warp)
    pivot = centre(before)
    assert pivot is not None
    zoom = Zoom((np.log(factor), np.log(factor)), (0.5, 0.4))
    shown = [warp_labels(labels, w) for w in zoomed([warp] * 5, zoom, pivot)]
    np.testing.assert_array_equal(shown[0], before)
    assert shown[-1].sum() / before.sum() == pytest.approx(factor**2, rel=0.15)
    assert centre(shown[-1]) == pytest.approx((0.5 * SIDE, 0.4 * SIDE), abs=1.0)
    grown = np.diff([int(mask.sum()) for mask in shown])
    assert (grown > 0).all() if factor > 1 else (grown < 0).all()


def test_zooms_keep_to_their_factor_and_share() -> None:
    rng = np.random.default_rng(0)
    config = VideoAugmentationConfig(zoom=4.0, zoom_aspect=1.0, zoom_share=0.5)
    zooms = [sample_zoom(rng, config) for _ in range(400)]
    factors = np.exp([zoom.log_scale[0] for zoom in zooms if zoom is not None])
    assert 150 < len(factors) < 250
    assert 0.25 <= factors.min() < 0.35
    assert 3 < factors.max() <= 4
    assert sample_zoom(rng, VideoAugmentationConfig()) is None


def test_a_kernel_spreads_along_its_path_only() -> None:
    kernel = path_kernel(12.0, 0.0, 0.0)
    assert kernel.sum() == pytest.approx(1)
    places = np.arange(len(kernel)) - len(kernel) // 2
    assert np.sqrt((kernel.sum(axis=0) * places**2).sum()) == pytest.approx(12 / 12**0.5, rel=0.1)
    assert np.sqrt((kernel.sum(axis=1) * places**2).sum()) < 0.5


def test_blur_keeps_what_is_even_and_softens_edges() -> None:
    frames = np.full((2, SIDE, SIDE, 3), 90, np.uint8)
    frames[1, :, SIDE // 2 :] = 200
    config = BlurConfig(share=1.0, defocus=0.02, motion=0.1)
    kernels = sample_blurs(np.random.default_rng(0), config, SIDE, len(frames))
    blurred = blur(frames, kernels)
    assert np.abs(blurred[0].astype(int) - 90).max() <= 1
    assert len(np.unique(blurred[1])) > len(np.unique(frames[1]))
    assert sample_blurs(np.random.default_rng(0), BlurConfig(), SIDE, 2) is None


def test_occluders_hide_objects_and_get_no_ids() -> None:
    lower, occluder = clip_of(20, 32, 10), clip_of(28, 32, 10)
    clip = hidden(lower, occluder)
    assert clip.num_objects == 1
    assert set(np.unique(clip.masks)) == {0, 1}
    np.testing.assert_array_equal(clip.masks[0], lower.masks[0] * (1 - occluder.masks[0]))


def test_objects_that_pass_over_meet_in_the_middle_of_the_clip() -> None:
    lower, upper = clip_of(20, 20, 6), clip_of(50, 50, 6)
    for seed in range(5):
        path = [centre(mask) for mask in over(np.random.default_rng(seed), upper, lower).masks]
        assert path[4] == pytest.approx((20, 20), abs=1)
        assert path[0] != path[4]


def test_some_objects_leave_the_picture_and_come_back() -> None:
    lower, upper = clip_of(20, 20, 6), clip_of(32, 32, 6)
    left = 0
    for seed in range(40):
        masks = across(np.random.default_rng(seed), upper, lower).masks
        seen = masks.any(axis=(1, 2))
        left += seen[0] and not seen[4] and seen[-1]
    assert left > 2


def test_shifted_clips_bring_in_nothing() -> None:
    clip = clip_of(32, 32, 8, count=2)
    away = moved(clip, np.array([[0.0, 0.0], [10.0, -5.0]]))
    np.testing.assert_array_equal(away.masks[0], clip.masks[0])
    assert centre(away.masks[1]) == pytest.approx((42, 27))
    assert away.masks[1].sum() == clip.masks[1].sum()


def test_small_instances_and_void_are_background() -> None:
    ids = np.zeros((50, 50), np.uint8)
    ids[:20, :20], ids[30, 30], ids[40:], ids[20:22, 20:24] = 3, 7, 255, 9
    with io.BytesIO() as stream:
        Image.fromarray(ids).save(stream, format="PNG")
        decoded = decode_instances(stream.getvalue(), "a mask")
    np.testing.assert_array_equal(decoded, np.where(ids == 3, 3, 0))


def test_videos_are_chosen_and_held_out_by_name(tmp_path: Path) -> None:
    for name in ("bear", "camel", "dog"):
        for part, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("L", (8, 8)).save(tmp_path / part / name / f"0.{suffix}")
    config = VideoFolderConfig(str(tmp_path), held_out=("dog",))
    assert len(open_source(config)) == 2
    assert len(open_source(VideoFolderConfig(str(tmp_path), videos=("camel", "dog")))) == 2
    with pytest.raises(InputError, match="there is no video 'cat'"):
        open_source(VideoFolderConfig(str(tmp_path), held_out=("cat",)))
    with pytest.raises(InputError, match="leave no video"):
        open_source(VideoFolderConfig(str(tmp_path), videos=("dog",), held_out=("dog",)))


def test_a_configuration_is_read_back_as_written() -> None:
    data = DataConfig(occlude=0.3, cross=0.5, blur=BlurConfig(share=0.2),
                      video=VideoAugmentationConfig(zoom=4.0))  # fmt: skip
    assert from_dict(type(data), to_dict(data)) == data
