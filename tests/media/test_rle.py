"""Masks as text, against strings that pycocotools made."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3_jax.errors import InputError
from s3_jax.media.rle import decode_rle, encode_rle

BOX = np.zeros((6, 9), bool)
BOX[1:4, 2:7] = True
Y, X = np.mgrid[:120, :200]
ELLIPSE = ((Y - 60) ** 2 / 50**2 + (X - 90) ** 2 / 80**2) < 1
NOISE = np.array(
    [
        [1, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1],
        [0, 1, 0, 1, 0, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0, 1, 0, 1, 0],
        [0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 0],
        [0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1],
        [0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1],
    ],
    bool,
)
RECORDED = [
    (BOX, "=330000000;"),
    (np.ones((5, 4), bool), "0d0"),
    (np.zeros((5, 4), bool), "d0"),
    (NOISE, "011132MM1000000000O114ON0M10O110OO010O101011"),
]


@pytest.mark.parametrize(("mask", "text"), RECORDED)
def test_equals_recorded_strings(mask, text):
    assert encode_rle(mask) == text
    assert np.array_equal(decode_rle(text, mask.shape), mask)


def test_long_runs_and_negative_differences():
    text = encode_rle(ELLIPSE)
    assert text.startswith("mZ1?U38J4L4L4M2M4M2M4M2N2N2N2N2N2O0O2N")
    assert text.endswith("2N3L3N3L3N3L4L4L6Ho^3")
    assert np.array_equal(decode_rle(text, ELLIPSE.shape), ELLIPSE)


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6))
def test_there_and_back(height, width, seed):
    random = np.random.default_rng(seed)
    mask = random.random((height, width)) < random.random()
    assert np.array_equal(decode_rle(encode_rle(mask), mask.shape), mask)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("d0", "20 pixels, not to 9x6"),
        ("=330000000~", "cannot hold the character '~'"),
        ("=33000000P", "break off"),
        ("", "0 pixels"),
    ],
)
def test_text_that_is_no_mask_of_that_size(text, message):
    with pytest.raises(InputError, match=message):
        decode_rle(text, BOX.shape)
