"""Sheets of pictures."""

import numpy as np
import pytest

from s3_jax.media.contact_sheet import (
    CAPTION_HEIGHT,
    GAP,
    Tile,
    contact_sheet,
    evenly_spaced,
    fit_width,
)


def _plain(value: int, height: int = 20, width: int = 40) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_pictures_lie_in_rows_at_their_place():
    sheet = contact_sheet([Tile(_plain(v)) for v in (10, 20, 30)], columns=2, width=40)
    assert sheet.shape == (GAP + 2 * (20 + CAPTION_HEIGHT + GAP), GAP + 2 * (40 + GAP), 3)
    below = GAP + 20 + CAPTION_HEIGHT + GAP
    for value, top, left in ((10, GAP, GAP), (20, GAP, 2 * GAP + 40), (30, below, GAP)):
        assert (sheet[top : top + 20, left : left + 40] == value).all()
    assert (sheet[below : below + 20, 2 * GAP + 40 :] == 255).all()  # no fourth picture


def test_captions_are_below_and_end_at_the_picture():
    sheet = contact_sheet([Tile(_plain(0), "00012" * 20), Tile(_plain(0))], columns=2, width=60)
    written = sheet[GAP + 30 : GAP + 30 + CAPTION_HEIGHT] < 128
    assert written[:, GAP : GAP + 60].any()
    assert not written[:, GAP + 60 :].any()


def test_pictures_of_several_shapes_take_one_width():
    sheet = contact_sheet([Tile(_plain(10, 20, 80)), Tile(_plain(20, 80, 40))], 2, 40)
    assert (sheet[GAP : GAP + 10, GAP : GAP + 40] == 10).all()
    assert (sheet[GAP : GAP + 80, 2 * GAP + 40 : 2 * GAP + 80] == 20).all()
    assert fit_width(_plain(3, 1, 400), 40).shape == (1, 40, 3)
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], 2)


@pytest.mark.parametrize(
    ("count", "wanted", "expected"),
    [(3, 5, [0, 1, 2]), (5, 3, [0, 2, 4]), (10, 4, [0, 3, 6, 9]), (7, 1, [0]), (0, 2, [])],
)
def test_evenly_spaced(count, wanted, expected):
    assert evenly_spaced(count, wanted) == expected
