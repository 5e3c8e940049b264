"""Sampling of the frames and objects of a clip."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from s3_jax.data.config import DataConfig
from s3_jax.data.sampling import choose, draw_frames, max_skip, object_ids, relabel

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.integers(8, 60), st.integers(1, 8), st.integers(1, 15))
def test_frames_are_distinct_ordered_and_close(seed, num_frames, count, skip):
    frames = draw_frames(np.random.default_rng(seed), num_frames, count, skip, reverse=0.5)
    steps = np.diff(frames)
    assert len(frames) == count
    assert min(frames) >= 0 and max(frames) < num_frames
    assert (steps > 0).all() or (steps < 0).all()
    assert (np.abs(steps) <= skip).all()


@given(SEEDS)
def test_reversal_is_a_choice(seed):
    rng = np.random.default_rng(seed)
    assert np.diff(draw_frames(rng, 20, 5, 3, reverse=1.0)).max() < 0
    assert np.diff(draw_frames(rng, 20, 5, 3, reverse=0.0)).min() > 0


def test_about_half_of_the_clips_run_backwards():
    rng = np.random.default_rng(0)
    backwards = [np.diff(draw_frames(rng, 30, 4, 5, reverse=0.5))[0] < 0 for _ in range(400)]
    assert 0.4 < np.mean(backwards) < 0.6


def test_all_frames_of_a_video_are_used():
    rng = np.random.default_rng(0)
    used = {frame for _ in range(200) for frame in draw_frames(rng, 20, 3, 5, reverse=0.5)}
    assert used == set(range(20))


@given(SEEDS)
def test_clips_avoid_starting_with_frames_known_to_be_empty(seed):
    empty = frozenset(range(10))
    frames = draw_frames(np.random.default_rng(seed), 20, 3, 5, reverse=0.0, empty=empty)
    assert frames[0] not in empty or frames[0] >= 5  # beyond 20 redraws chance may not do it


def test_a_photograph_is_repeated():
    assert draw_frames(np.random.default_rng(0), 1, 3, 5, reverse=0.5) == [0, 0, 0]


def test_curriculum_of_the_published_training():
    skips = DataConfig().skips
    assert [max_skip(skips, progress, 1) for progress in (0, 0.05, 0.1, 0.29, 0.3, 0.8, 1)] == [
        5, 5, 10, 10, 15, 5, 5,
    ]  # fmt: skip
    assert [max_skip(skips, progress, 5) for progress in (0, 0.1, 0.3, 0.8)] == [1, 2, 3, 1]
    assert max_skip(skips, 0.0, 30) == 1


@given(SEEDS, st.lists(st.integers(1, 254), unique=True, max_size=8).map(sorted))
def test_objects_are_chosen_at_random_and_numbered_from_one(seed, present):
    rng = np.random.default_rng(seed)
    ids = np.array([[0, *present]], np.uint8)
    chosen = choose(rng, object_ids(ids), 3)
    assert len(chosen) == min(3, len(present)) and set(chosen) <= set(present)
    labels = relabel(ids, chosen)
    assert object_ids(labels) == list(range(1, len(chosen) + 1))
    for label, object_id in enumerate(chosen, 1):
        np.testing.assert_array_equal(labels == label, ids == object_id)


def test_every_object_is_chosen_sometimes():
    rng = np.random.default_rng(0)
    assert {i for _ in range(50) for i in choose(rng, [3, 5, 7, 9, 11], 2)} == {3, 5, 7, 9, 11}


def test_ids_beyond_eight_bits():
    ids = np.array([[0, 70_000, 300, 300]], np.int32)
    assert object_ids(ids) == [300, 70_000]
    np.testing.assert_array_equal(relabel(ids, [300]), np.array([[0, 0, 1, 1]], np.uint8))


@given(SEEDS, st.integers(2, 7))
def test_a_video_shorter_than_a_clip_is_played_back_and_forth(seed, num_frames):
    frames = draw_frames(np.random.default_rng(seed), num_frames, 8, 10, reverse=0.5)
    assert len(frames) == 8 and set(frames) == set(range(num_frames))
    assert (np.abs(np.diff(frames)) == 1).all()
