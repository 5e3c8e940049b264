"""Windows: the part of an image that they show, and the way back to the image."""

import numpy as np
import pytest

from s3_jax.prompting.windows import (
    CLOSE_SIZE,
    WHOLE_SIZES,
    Window,
    close_window,
    extent,
    whole_window,
)


@pytest.mark.parametrize("size", [(480, 854), (854, 480), (500, 500), (90, 2000), (2160, 3840)])
def test_a_whole_image_fits_a_known_size_without_being_stretched(size: tuple[int, int]) -> None:
    window, seen = whole_window(size)
    assert seen in WHOLE_SIZES
    corners = window.points_from(np.array([[0, 0], [size[1], size[0]]]), seen)
    assert (corners >= -1e-3).all() and (corners <= np.array(seen[::-1]) + 1e-3).all()
    assert window.width / seen[1] == pytest.approx(window.height / seen[0])


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_what_a_view_shows_comes_back_to_its_place(scale: float) -> None:
    y, x = np.mgrid[:120, :160]
    disc = ((np.hypot(x - 70, y - 50) < 20) * 1.0).astype(np.float32)
    window = Window(30.5, 12.25, 90.0, 80.0)
    size = (round(80 * scale), round(90 * scale))
    there = window.view_of(disc, size)
    assert there.shape == size
    back = window.back(there, disc.shape) > 0.5
    assert np.logical_xor(back, disc > 0.5).sum() < 0.08 * disc.sum()
    (px, py) = window.points_from(np.array([[70.5, 50.5]]), size)[0]
    rows, columns = np.nonzero(there > 0.5)
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((px, py), abs=0.6)


def test_beyond_the_edges_is_grey() -> None:
    image = np.full((20, 20, 3), 255, np.uint8)
    seen = Window(-20.0, -20.0, 60.0, 60.0).view_of(image, (60, 60), 127.0)
    assert (seen[30, 30] == 255).all() and (seen[5, 5] == 127).all()


def test_a_close_window_is_around_the_box_and_in_the_image() -> None:
    window = close_window((10.0, 20.0, 110.0, 60.0), (480, 854))
    assert window.left == 0 and window.top >= 0
    assert window.left + window.width >= 110 and window.top + window.height >= 60
    assert 1 <= window.width / window.height <= 1.31
    tall = close_window((0.0, 0.0, 30.0, 470.0), (480, 854))
    assert tall.top + tall.height / 2 == pytest.approx(240)  # has no room, so it is centred
    assert CLOSE_SIZE[0] % 32 == CLOSE_SIZE[1] % 32 == 0


def test_extent() -> None:
    mask = np.zeros((5, 7), bool)
    assert extent(mask) is None
    mask[1:3, 4] = True
    assert extent(mask) == (4, 1, 5, 3)
