"""Padding and resizing of frames and masks, against recordings and against each other."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_jax.config import MODELS, PropagationConfig
from s3_jax.propagation.geometry import (
    frame_geometry,
    network_geometry,
    pad,
    prepare_image,
    resize_mask,
    restore,
)

RECORDED = {  # height x width -> left, right, top, bottom, as the published code pads
    (90, 117): (5, 6, 3, 3),
    (96, 128): (0, 0, 0, 0),
    (31, 33): (15, 16, 0, 1),
    (100, 64): (0, 0, 14, 14),
}


@pytest.mark.parametrize("size", RECORDED)
def test_padding_is_that_of_the_published_code(size):
    left, right, top, bottom = RECORDED[size]
    assert frame_geometry(size, 32).padding == (top, bottom, left, right)


@given(st.integers(1, 200), st.integers(1, 200), st.sampled_from([16, 32]))
def test_padded_sizes(height, width, multiple):
    geometry = frame_geometry((height, width), multiple)
    padded = geometry.padded
    assert all(p % multiple == 0 and 0 <= p - n < multiple
               for p, n in zip(padded, (height, width), strict=True))  # fmt: skip


def test_the_short_side_is_bounded():
    assert frame_geometry((480, 854), 32, 240).inner == (240, 427)
    assert frame_geometry((854, 480), 32, 240).inner == (427, 240)
    assert frame_geometry((240, 400), 32, 480).inner == (240, 400)


@pytest.mark.parametrize(
    ("size", "largest", "inner"),
    [
        ((240, 432), -1, (416, 748)),
        ((432, 240), -1, (748, 416)),
        ((480, 854), -1, (480, 854)),
        ((100, 150), -1, (200, 300)),  # twice its size at most
        ((240, 432), 320, (320, 576)),
        ((240, 432), 192, (192, 345)),
        ((240, 432), 240, (240, 432)),
    ],
)
def test_small_frames_are_enlarged_within_limits(size, largest, inner):
    assert network_geometry(size, MODELS["s3_lite"], largest).inner == inner
    assert network_geometry(size, MODELS["s3_vitb"]).inner == size


def test_a_size_that_frames_were_shrunk_to_is_a_limit():
    assert PropagationConfig().at_most(240).max_internal_size == 240
    assert PropagationConfig(max_internal_size=360).at_most(480).max_internal_size == 360
    assert PropagationConfig(max_internal_size=360).at_most(-1).max_internal_size == 360
    assert PropagationConfig().at_most(-1) == PropagationConfig()


def test_restoring_undoes_padding():
    geometry = frame_geometry((30, 50), 32)
    image = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)
    prepared = prepare_image(jnp.asarray(image), geometry)
    assert prepared.shape == (1, 32, 64, 3)
    back = restore(jnp.moveaxis(prepared[0], -1, 0), geometry)
    np.testing.assert_allclose(np.moveaxis(np.asarray(back), 0, -1), image / 255, atol=1e-6)


def test_hard_masks_stay_hard_and_soft_ones_soft():
    mask = np.zeros((6, 6), bool)
    mask[:3] = True
    half = resize_mask(mask, (3, 3))
    assert half.dtype == bool
    np.testing.assert_array_equal(half, [[1] * 3, [0] * 3, [0] * 3])
    soft = resize_mask(np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4), (2, 2))
    assert soft.dtype == np.float32 and 0 < soft[0, 0] < soft[1, 1] < 1
    assert pad(jnp.asarray(soft)[None, None], frame_geometry((2, 2), 32), axis=2).shape == (
        1,
        1,
        32,
        32,
    )
