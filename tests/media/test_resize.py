import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from s3_jax.media.resize import resize_probabilities, shrink_ids, shrink_image, shrunk_size


def test_davis_480p_stays_and_full_hd_shrinks():
    assert shrunk_size((480, 854), 480) == (480, 854)
    assert shrunk_size((1080, 1920), 480) == (480, 853)
    assert shrunk_size((1920, 1080), 480) == (853, 480)
    assert shrunk_size((1080, 1920), -1) == (1080, 1920)


@given(st.tuples(st.integers(1, 5000), st.integers(1, 5000)), st.integers(1, 1000))
def test_shrinking_only_shrinks(size, short_side):
    small = shrunk_size(size, short_side)
    assert min(small) == min(*size, short_side)
    assert all(a <= b for a, b in zip(small, size, strict=True))
    assert abs(small[0] * size[1] - small[1] * size[0]) < max(size)


def test_antialiasing_averages():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    small = shrink_image(stripes, (16, 16))
    assert np.abs(small[:, 2:-2].astype(int) - 100).max() <= 2


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_ids_are_those_of_the_nearest_pixel_centre(height, width, new_height, new_width):
    new = (min(height, new_height), min(width, new_width))
    ids = np.arange(height * width, dtype=np.int32).reshape(height, width)
    small = shrink_ids(ids, new)
    rows, columns = np.divmod(small, width)
    for index, length, full in ((rows[:, 0], new[0], height), (columns[0], new[1], width)):
        centres = (np.arange(length) + 0.5) * full / length
        assert (np.abs(index + 0.5 - centres) <= 0.5 + 1e-9).all()


def test_probabilities_still_sum_to_one():
    prob = np.random.default_rng(0).random((3, 7, 9), dtype=np.float32)
    prob /= prob.sum(axis=0, keepdims=True)
    big = resize_probabilities(prob, (20, 31))
    assert big.shape == (3, 20, 31)
    np.testing.assert_allclose(big.sum(axis=0), 1, atol=1e-6)
    flat = resize_probabilities(np.full((1, 4, 4), 0.25, np.float32), (9, 5))
    np.testing.assert_allclose(flat, 0.25)
