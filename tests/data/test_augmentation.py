"""Geometry and colour: masks stay on their objects, and nothing is resampled twice."""

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3_jax.data.augmentation import image_warps, sample_colours, video_warp
from s3_jax.data.colour import GREY, ColourChange, recolour
from s3_jax.data.config import (
    ColourConfig,
    DataConfig,
    ImageAugmentationConfig,
    VideoAugmentationConfig,
)
from s3_jax.data.merging import Clip, limit, paste
from s3_jax.data.thin_plate import interpolate, sample_bend
from s3_jax.data.warp import Warp, reduction, scaling, shift, warp_image, warp_labels
from tests.data.datasets import BACKGROUND, COLOURS, draw

SEEDS = st.integers(0, 2**32 - 1)
FILL = (124, 116, 104)
few = settings(max_examples=25)


def overlap(image: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union of a mask of object 1 and the pixels in the object's colour."""
    distances = [
        np.abs(image.astype(int) - np.array(colour)[None, None]).sum(-1)
        for colour in (COLOURS[1], BACKGROUND, FILL)
    ]
    coloured = np.argmin(distances, axis=0) == 0
    union = coloured | (mask == 1)
    return (coloured & (mask == 1)).sum() / max(1, union.sum())


@few
@given(SEEDS)
def test_masks_of_image_clips_lie_on_their_objects(seed):
    image, ids = draw((90, 140), [(1, 70, 45, 30)])
    options = ImageAugmentationConfig(bend=0.5)
    for warp in image_warps(np.random.default_rng(seed), ids.shape, 96, 3, options):
        mask = warp_labels(ids, warp)
        if (mask == 1).sum() > 400:
            assert overlap(warp_image(image, warp, FILL), mask) > 0.88


@few
@given(SEEDS)
def test_masks_of_video_clips_lie_on_their_objects(seed):
    image, ids = draw((90, 140), [(1, 70, 45, 30)])
    warp = video_warp(np.random.default_rng(seed), ids.shape, 96, VideoAugmentationConfig())
    mask = warp_labels(ids, warp)
    assert (mask == 1).sum() > 200  # crops of a third of the picture at least
    assert overlap(warp_image(image, warp, FILL), mask) > 0.9


def test_a_warp_that_does_nothing_changes_nothing():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    ids = np.random.default_rng(1).integers(0, 4, (32, 32), np.uint8)
    still = interpolate(np.random.default_rng(2).random((16, 2)), np.zeros((16, 2)))
    for bend in (None, still):
        warp = Warp(np.eye(3), np.eye(3), 32, bend)
        np.testing.assert_array_equal(warp_image(image, warp, FILL), image)
        np.testing.assert_array_equal(warp_labels(ids, warp), ids)


def test_a_reduced_source_gives_the_same_picture():
    image, _ = draw((120, 160), [(1, 80, 60, 40)])
    half = cv2.resize(image, (80, 60), interpolation=cv2.INTER_AREA)
    warp = Warp(scaling(2, 2) @ shift(8, 3), np.eye(3), 48)
    full = warp_image(image, warp, FILL)
    reduced = warp_image(half, warp.for_size((60, 80), (120, 160)), FILL)
    assert np.abs(full.astype(int) - reduced).mean() < 1.0


def test_shrinking_averages_instead_of_picking_pixels():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    small = warp_image(stripes, Warp(scaling(4, 4), np.eye(3), 64), FILL)
    assert np.abs(small.astype(int) - 128).max() <= 2


def test_the_reduced_decoding_is_never_too_coarse():
    assert [reduction(step) for step in (0.3, 1.0, 1.9, 2.0, 3.9, 5.0, 20.0)] == [
        1, 1, 1, 2, 2, 4, 8,
    ]  # fmt: skip


def test_beyond_the_edges_is_the_fill_colour_and_background():
    image, ids = draw((40, 40), [(1, 20, 20, 18)])
    warp = Warp(shift(-60, 0), np.eye(3), 40)
    assert (warp_image(image, warp, FILL) == np.array(FILL)[None, None]).all()
    assert (warp_labels(ids, warp) == 0).all()
    assert (warp_image(image, warp, None) != np.array(FILL)[None, None]).any()


@few
@given(SEEDS)
def test_a_bend_takes_its_control_points_where_they_should_go(seed):
    rng = np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(np.arange(4), np.arange(4)), -1).reshape(-1, 2)
    points = (cells + 0.5) / 4
    moved = rng.normal(0, 0.02, points.shape)
    np.testing.assert_allclose(interpolate(points, moved)(points), moved, atol=0.01)  # type: ignore[misc]


def test_a_bend_reproduces_affine_maps_everywhere():
    points = np.random.default_rng(0).random((16, 2))
    linear = np.array([[0.1, -0.2], [0.3, 0.05]])
    places = np.random.default_rng(1).uniform(-1, 2, (50, 2))
    bend = interpolate(points, points @ linear)
    np.testing.assert_allclose(bend(places), places @ linear, atol=1e-9)  # type: ignore[misc]


def test_bends_are_about_as_strong_as_asked():
    rng = np.random.default_rng(0)
    places = rng.random((100, 2))
    sizes = [sample_bend(rng, 0.02)(places).std() for _ in range(30)]  # type: ignore[misc]
    assert 0.01 < np.mean(sizes) < 0.04


def test_frames_of_an_image_clip_differ_and_share_the_flip():
    options = ImageAugmentationConfig(rotation=0, shear=0, bend=0)
    mirrored = []
    for seed in range(40):
        warps = image_warps(np.random.default_rng(seed), (90, 140), 64, 3, options)
        signs = {np.sign(np.linalg.det(warp.matrix[:2, :2])) for warp in warps}
        assert len(signs) == 1
        assert not np.allclose(warps[0].matrix, warps[1].matrix)
        mirrored += signs
    assert 8 < mirrored.count(-1) < 32


def test_a_short_walk_moves_frames_little():
    options = ImageAugmentationConfig(bend=0, walk=0.02)
    for seed in range(10):
        warps = image_warps(np.random.default_rng(seed), (90, 140), 64, 8, options)
        middles = np.array([(warp.matrix @ [31.5, 31.5, 1])[:2] for warp in warps])
        assert np.linalg.norm(np.diff(middles, axis=0), axis=1).max() < 12
        assert len(np.unique(middles, axis=0)) == 8


def test_crops_keep_to_area_and_aspect():
    options = VideoAugmentationConfig(rotation=0, shear=0, flip=0)
    for seed in range(50):
        warp = video_warp(np.random.default_rng(seed), (480, 854), 480, options)
        wide, tall = 480 * warp.matrix[0, 0], 480 * warp.matrix[1, 1]
        assert 0.36 * 0.999 <= wide * tall / (480 * 854) <= 1.001
        assert 3 / 4 - 1e-6 <= wide / tall <= 4 / 3 + 1e-6
        left, top, _ = warp.matrix @ [-0.5, -0.5, 1]
        assert left >= -0.51 and top >= -0.51
        assert left + wide <= 854 and top + tall <= 480


@pytest.mark.parametrize("size", [(20, 400), (400, 20)])
def test_very_long_pictures_are_cropped_in_the_middle(size):
    warp = video_warp(np.random.default_rng(0), size, 64, VideoAugmentationConfig(crop_area=(1, 1)))
    middle = warp.matrix @ [31.5, 31.5, 1]
    np.testing.assert_allclose(middle[:2], [(size[1] - 1) / 2, (size[0] - 1) / 2], atol=1)


def picture(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(60, 190, (16, 16, 3), np.uint8)
    return cv2.resize(noise, (64, 64), interpolation=cv2.INTER_NEAREST)


def test_grey_is_grey_and_keeps_the_luma():
    grey = recolour(picture(), [GREY])
    assert np.ptp(grey.astype(int), axis=-1).max() <= 1
    luma = cv2.cvtColor(picture(), cv2.COLOR_RGB2GRAY)
    assert np.abs(grey[..., 0].astype(int) - luma).max() <= 1


def test_brightness_contrast_and_saturation_do_what_they_say():
    image = picture().astype(float)
    luma = image @ [0.299, 0.587, 0.114]
    expected = {
        "brightness": image * 1.1,
        "contrast": luma.mean() + 1.1 * (image - luma.mean()),
        "saturation": luma[..., None] + 1.1 * (image - luma[..., None]),
    }
    for name, result in expected.items():
        changed = recolour(picture(), [ColourChange(**{name: 1.1})])
        assert np.abs(changed - result.clip(0, 255)).max() < 1.6, name


def test_a_full_turn_of_the_hue_changes_nothing_and_half_a_turn_much():
    assert np.abs(recolour(picture(), [ColourChange(hue=1.0)]).astype(int) - picture()).max() <= 1
    assert np.abs(recolour(picture(), [ColourChange(hue=0.5)]).astype(int) - picture()).mean() > 10


def test_composed_changes_equal_one_after_the_other():
    changes = [
        ColourChange(1.05, 0.96, 1.04, 0.01, (2, 1, 3, 0)),
        ColourChange(0.97, 1.05, 0.95, -0.02, (1, 0, 2, 3)),
    ]
    stepwise = recolour(recolour(picture(), changes[:1]), changes[1:])
    together = recolour(picture(), changes)
    assert np.abs(together.astype(int) - stepwise).max() <= 3


def test_colours_of_a_clip_are_shared_and_those_of_frames_are_not():
    config = dataclasses.replace(DataConfig(), num_frames=4)
    colours = sample_colours(np.random.default_rng(0), config, still=False)
    assert len(colours) == 4
    assert len({changes[1] for changes in colours}) == 1
    assert len({changes[0] for changes in colours}) == 4
    assert abs(colours[0][0].brightness - 1) <= 0.1
    assert all(change.hue == 0 for changes in colours for change in changes)


def test_greyness_happens_as_often_as_asked():
    config = DataConfig(video=VideoAugmentationConfig(grey=0.3, clip_colour=ColourConfig()))
    rng = np.random.default_rng(0)
    greys = [GREY in sample_colours(rng, config, still=False)[0] for _ in range(300)]
    assert 0.2 < np.mean(greys) < 0.4


def clip_of(discs: list[tuple[int, float, float, float]], count: int) -> Clip:
    image, ids = draw((64, 64), discs)
    return Clip(np.stack([image] * 2), np.stack([ids] * 2), count)


def test_pasting_puts_objects_and_only_them_on_top():
    lower = clip_of([(1, 20, 32, 12), (2, 50, 32, 8)], 2)
    upper = clip_of([(1, 30, 32, 10)], 1)
    upper = dataclasses.replace(upper, frames=np.full_like(upper.frames, 255))
    merged = paste(upper, lower)
    inside = upper.masks > 0
    assert merged.num_objects == 3
    np.testing.assert_array_equal(merged.masks[inside], 3)
    np.testing.assert_array_equal(merged.masks[~inside], lower.masks[~inside])
    distance = cv2.distanceTransform((~inside[0]).astype(np.uint8), cv2.DIST_L2, 5)
    np.testing.assert_array_equal(
        merged.frames[0][distance > 4], lower.frames[0][distance > 4]
    )  # the outline is soft within a window of 5
    assert (merged.frames[0, 32, 30] == 255).all()
    edge = merged.frames[0, 32, 41]
    assert not np.array_equal(edge, lower.frames[0, 32, 41]) and (edge < 255).any()


def test_objects_hidden_at_the_start_are_dropped():
    hidden = clip_of([(1, 20, 20, 5), (2, 20, 20, 9), (3, 50, 50, 8)], 3)
    visible = limit(np.random.default_rng(0), hidden, 3)
    assert visible.num_objects == 2
    assert set(np.unique(visible.masks)) == {0, 1, 2}
    np.testing.assert_array_equal(visible.masks == 2, hidden.masks == 3)


def test_no_more_objects_than_allowed_remain():
    crowd = clip_of([(1, 10, 20, 5), (2, 30, 20, 5), (3, 50, 50, 8)], 3)
    one = limit(np.random.default_rng(0), crowd, 1)
    assert one.num_objects == 1 and set(np.unique(one.masks)) == {0, 1}
