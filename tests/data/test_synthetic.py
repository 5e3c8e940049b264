import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3_jax.data.synthetic import SceneConfig, render, sample_scene, synthetic_video

STILL = SceneConfig(distractors=0, lookalikes=0.0, noise=0.0)


@settings(max_examples=15)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 6),
    st.sampled_from([(48, 64), (64, 48), (240, 432), (97, 131)]),
)
def test_videos_have_the_promised_form(seed, num_objects, size):
    for frame, mask in synthetic_video(3, size[0], size[1], num_objects, seed):
        assert frame.shape == (*size, 3)
        assert frame.dtype == np.uint8
        assert mask.shape == size
        assert mask.dtype == np.uint8
        assert mask.max() <= num_objects
    first = next(synthetic_video(1, size[0], size[1], num_objects, seed))[1]
    assert set(np.unique(first)) >= set(range(1, num_objects + 1))


def test_a_seed_decides_everything_and_moments_are_independent():
    one, two = (list(synthetic_video(6, 60, 80, 2, seed=5)) for _ in range(2))
    other = next(synthetic_video(1, 60, 80, 2, seed=6))
    for (frame, mask), (frame_again, mask_again) in zip(one, two, strict=True):
        assert np.array_equal(frame, frame_again)
        assert np.array_equal(mask, mask_again)
    assert not np.array_equal(one[0][0], other[0])
    scene = sample_scene(np.random.default_rng(5), 60, 80, 2)
    frame, mask = render(scene, 4)
    assert np.array_equal(frame, one[4][0])
    assert np.array_equal(mask, one[4][1])


def test_masks_are_exact():
    """Only pixels that an object covers change when its surface does."""
    scene = sample_scene(np.random.default_rng(3), 120, 160, 3, STILL)
    for t in (0, 7, 31):
        frame, mask = render(scene, t)
        for body in scene.bodies:
            inverted = [
                dataclasses.replace(
                    part, picture=np.dstack([255 - part.picture[..., :3], part.picture[..., 3]])
                )
                for part in body.parts
            ]
            bodies = tuple(
                dataclasses.replace(b, parts=tuple(inverted)) if b is body else b
                for b in scene.bodies
            )
            changed, mask_again = render(dataclasses.replace(scene, bodies=bodies), t)
            assert np.array_equal(mask, mask_again)
            # The inverse of the colour `c` is `255 - c`: twice the distance from the middle.
            difference = np.abs(frame.astype(int) - changed).max(axis=-1)
            outside = difference[mask != body.object_id]
            assert (outside > 140).mean() < 0.002  # half-covered pixels at the rim


def test_motion_is_smooth_and_real():
    masks = [mask for _, mask in synthetic_video(30, 120, 160, 2, 1, STILL)]
    for object_id in (1, 2):
        steps = [
            np.logical_and(a == object_id, b == object_id).sum()
            / max(np.logical_or(a == object_id, b == object_id).sum(), 1)
            for a, b in itertools.pairwise(masks)
        ]
        assert min(steps) > 0.4  # overlap of neighbouring frames
    moved = np.logical_xor(masks[0] > 0, masks[-1] > 0).sum()
    assert moved > 0.2 * (masks[0] > 0).sum()


def test_options_do_what_they_say():
    def video(**changes):
        config = dataclasses.replace(STILL, **changes)
        return list(synthetic_video(4, 60, 80, 2, 9, config))

    still = video(speed=0.0)
    assert np.array_equal(still[0][1], still[3][1])
    sharp, blurred = video(speed=3.0), video(speed=3.0, motion_blur=1.0)
    assert np.array_equal(sharp[2][1], blurred[2][1])
    gradients = [np.abs(np.diff(v[2][0].astype(int), axis=1)).mean() for v in (sharp, blurred)]
    assert gradients[1] < gradients[0]
    noisy = video(noise=20.0)
    assert 10 < (noisy[0][0].astype(int) - sharp[0][0]).std() < 40
    scene = sample_scene(np.random.default_rng(0), 60, 80, 2, SceneConfig(distractors=3))
    assert sorted(b.object_id for b in scene.bodies) == [0, 0, 0, 1, 2]
    alike = sample_scene(np.random.default_rng(0), 60, 80, 3, SceneConfig(lookalikes=1.0))
    assert len({id(body.parts) for body in alike.bodies}) == 1


def test_photographs_can_be_used_as_surfaces():
    red = np.zeros((50, 70, 3), np.uint8)
    red[..., 0] = 200
    frame, _ = render(sample_scene(np.random.default_rng(0), 60, 80, 2, STILL, [red]), 0)
    assert frame[..., 0].mean() > 100
    assert frame[..., 1:].max() == 0


def test_impossible_scenes_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="80x8 is too small"):
        sample_scene(rng, 8, 80, 1)
    with pytest.raises(ValueError, match="num_objects is 256"):
        sample_scene(rng, 80, 80, 256)
    with pytest.raises(ValueError, match="no room for 200"):
        sample_scene(rng, 16, 16, 200)
