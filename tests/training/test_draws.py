"""Random choices of a step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.training.draws import Draws, deep_updates, draw
from s3_jax.training.step_config import ClipConfig

KEY = jax.random.key(3)
SETTINGS = ClipConfig(num_ref_frames=3)


def of_rows(*rows: int, frames: int = 8) -> Draws:
    return draw(KEY, jnp.array(rows), frames, 4, SETTINGS)


def test_an_items_choices_follow_from_its_row_in_the_global_batch() -> None:
    every, some = of_rows(0, 1, 2, 3), of_rows(2, 3)
    np.testing.assert_array_equal(every.deep_update, some.deep_update)
    np.testing.assert_array_equal(every.references[:, 2:], some.references)
    keys = [np.asarray(jax.random.key_data(x.points)) for x in (every, some)]
    np.testing.assert_array_equal(keys[0][:, 2:], keys[1])


def test_points_have_keys_of_their_own() -> None:
    keys = np.asarray(jax.random.key_data(of_rows(0, 1).points))
    assert keys.shape[:3] == (7, 2, 4)
    assert len(np.unique(keys.reshape(-1, keys.shape[-1]), axis=0)) == 7 * 2 * 4


def test_references_are_all_earlier_frames_or_a_random_part_of_them() -> None:
    references = np.asarray(of_rows(*range(50)).references)
    assert references.shape == (7, 50, 3)
    for frame, of_items in enumerate(references, start=1):
        for item in of_items:
            earlier = item[item < frame]
            assert len(set(earlier)) == min(frame, 3) == len(earlier)
        # Every earlier frame is read by somebody.
        assert set(of_items[of_items < frame]) == set(range(frame))


def test_short_clips_have_fewer_references() -> None:
    assert of_rows(0, frames=3).references.shape == (2, 1, 2)


@pytest.mark.parametrize(("probability", "expected"), [(0.0, 1), (1.0, 7)])
def test_the_first_frame_always_updates_deeply(probability: float, expected: int) -> None:
    found = np.asarray(deep_updates(KEY, 8, probability))
    assert found[0] and found.sum() == expected


def test_other_frames_update_deeply_by_chance() -> None:
    keys = jax.random.split(KEY, 400)
    found = np.asarray(jax.vmap(lambda key: deep_updates(key, 8, 0.2))(keys))[:, 1:]
    assert found.mean() == pytest.approx(0.2, abs=0.03)
