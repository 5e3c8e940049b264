"""The sinusoidal encoding for widths and sizes beyond those recorded."""

import numpy as np
import pytest

from s3_jax.models.positional import inverse_frequencies, sinusoidal_encoding


@pytest.mark.parametrize("channels", [4, 6, 32, 256])
def test_every_position_is_distinct_and_bounded(channels: int) -> None:
    table = sinusoidal_encoding(5, 7, channels)
    assert table.shape == (5, 7, channels)
    assert np.abs(table).max() <= 1
    assert len(np.unique(table.reshape(-1, channels), axis=0)) == 35


def test_layout_is_x_then_y_sines_and_cosines_alternating() -> None:
    table = sinusoidal_encoding(3, 3, 8)
    x, y = table[..., :4], table[..., 4:]
    assert (x == x[:1]).all()
    assert (y == y[:, :1]).all()
    np.testing.assert_allclose(table[0, 0], [0, 1] * 4)
    np.testing.assert_allclose(table[0, 2, :2], [np.sin(32), np.cos(32)], atol=1e-4)


def test_a_single_row_does_not_divide_by_zero() -> None:
    assert np.isfinite(sinusoidal_encoding(1, 1, 8)).all()


def test_frequencies_fall_from_one() -> None:
    np.testing.assert_allclose(inverse_frequencies(8), [1, 128**-0.5])
