"""The scene of the bundled clip shows what it is meant to show."""

import dataclasses
import functools

import numpy as np
import pytest

from s3_jax.data.synthetic_render import compose
from s3_jax.data.synthetic_scene import Scene
from s3_jax.demo import clip
from s3_jax.demo.pond import HEIGHT, NUM_FRAMES, WIDTH, pond_scene

FISH = (1, 2, 3)


@functools.cache
def scene() -> Scene:
    return pond_scene()


def hidden_share(object_id: int, t: int) -> float:
    """Return the share of a fish that other fish hide at time t, not counting what leaves hide."""
    bodies = tuple(b for b in scene().bodies if b.object_id in (0, object_id))
    alone = compose(dataclasses.replace(scene(), bodies=bodies), t)[1] == object_id
    return 1 - (compose(scene(), t)[1] == object_id).sum() / alone.sum()


def test_every_fish_is_whole_in_the_first_frame_and_large_enough_to_follow() -> None:
    assert all(hidden_share(i, 0) == 0 for i in FISH)
    for t in range(0, NUM_FRAMES, 5):
        mask = compose(scene(), t)[1]
        assert mask.shape == (HEIGHT, WIDTH)
        assert (np.bincount(mask.ravel(), minlength=4)[1:] > 0.01 * mask.size).all()


def test_the_middle_is_a_crossing_with_partial_occlusion() -> None:
    assert 0.35 < max(hidden_share(2, t) for t in range(22, 34, 2)) < 0.7
    assert 0.15 < max(hidden_share(3, t) for t in range(30, 38, 2)) < 0.5


def test_afterwards_the_fish_are_apart_and_have_changed_sides() -> None:
    for t in (clip.AFTER_CROSSING, NUM_FRAMES - 1):
        assert all(hidden_share(i, t) < 0.1 for i in FISH)
    columns = {
        t: [np.argwhere(compose(scene(), t)[1] == i)[:, 1].mean() for i in (1, 2)]
        for t in (0, NUM_FRAMES - 1)
    }
    assert columns[0][0] < columns[0][1] - 100
    assert columns[NUM_FRAMES - 1][0] > columns[NUM_FRAMES - 1][1] + 100


def test_the_fish_look_alike() -> None:
    """Mean colours over their bodies are as near as those of one fish at two moments."""
    picture, mask = compose(scene(), 0)
    means = np.array([picture[mask == i].mean(axis=0) for i in FISH])
    assert np.abs(means - means.mean(axis=0, keepdims=True)).max() < 20
    assert np.abs(means - picture[mask == 0].mean(axis=0)[None]).max() > 80


@pytest.mark.parametrize("t", [0, 27])
def test_the_scene_is_the_same_at_every_call(t: int) -> None:
    again = compose(pond_scene(), t)
    assert all(np.array_equal(a, b) for a, b in zip(compose(scene(), t), again, strict=True))
