"""The choices of the queries, told from the network's own stages."""

import dataclasses

import numpy as np
import pytest

from s3_jax.config import PropagationConfig
from s3_jax.conversion.weights import from_torch, torch_shapes
from s3_jax.errors import InputError
from s3_jax.evaluation.query_attention import WatchedSession, query_choices
from s3_jax.models.s3 import S3
from s3_jax.propagation.geometry import frame_geometry
from s3_jax.propagation.state import init_state
from s3_jax.propagation.step import Network
from tests.propagation.conftest import TINY, Video
from tests.support.weights import state_dict

CONFIG = PropagationConfig(mem_every=2)


FRAMES = Video(5)


@pytest.fixture(scope="module")
def variables():
    return from_torch(state_dict(torch_shapes(TINY)), TINY)


@pytest.fixture(scope="module")
def session(variables):
    watched = WatchedSession(TINY, variables, CONFIG)
    watched.add(FRAMES.masks[0])
    for frame in FRAMES.frames[:3]:
        watched.step(frame)
    return watched


def test_picks_lie_in_the_frame_and_where_they_may(session):
    choices = session.choices(FRAMES.frames[3])
    slots, height, width = 3, 64, 96
    assert choices.row.shape == (TINY.num_blocks, slots, TINY.num_heads, TINY.num_queries)
    assert choices.inside.shape == (TINY.num_blocks, slots, height // 16, width // 16)
    assert (choices.row >= 0).all()
    assert (choices.row < height).all()
    rows, columns = (choices.row // 16).astype(int), (choices.column // 16).astype(int)
    half = TINY.num_queries // 2
    for block in range(TINY.num_blocks):
        for object_id in (1, 2, 3):
            slot = session.slot(object_id)
            inside = choices.inside[block, slot]
            readable = inside[rows[block, slot], columns[block, slot]]
            assert readable[:, :half].all()
            if not inside.all():  # else background queries may read everything
                assert not readable[:, half:].any()
    assert len(np.unique(choices.row)) > 1


def test_looking_changes_nothing(session):
    before = session.frame_index
    first, second = session.choices(FRAMES.frames[3]), session.choices(FRAMES.frames[3])
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert session.frame_index == before


def test_positions_are_those_of_the_frame_before_padding_and_shrinking(variables):
    config = PropagationConfig(max_internal_size=40)
    watched = WatchedSession(TINY, variables, config)
    frame = np.random.default_rng(0).integers(0, 255, (80, 120, 3), np.uint8)
    masks = np.zeros((80, 120), np.uint8)
    masks[20:60, 30:80] = 1
    watched.add(masks)
    watched.step(frame)
    choices = watched.choices(frame)  # 40 x 60 inside 64 x 64: tokens 16 apart are 32 apart here
    for positions, length, padding in ((choices.row, 80, 12), (choices.column, 120, 2)):
        tokens = ((positions + 0.5) / 2 - 0.5 + padding - 7.5) / 16
        inner = (positions > 0.5) & (positions < length - 1.5)
        np.testing.assert_allclose(tokens[inner], tokens[inner].round(), atol=1e-6)
        assert ((positions >= 0) & (positions <= length - 0.5)).all()


def test_networks_whose_queries_do_not_choose():
    config = dataclasses.replace(TINY, query_attention="multi_head")
    geometry = frame_geometry((64, 64), 32)
    state = init_state(config, CONFIG, geometry.padded)
    with pytest.raises(InputError, match="blend many pixels"):
        query_choices(Network(S3(config), {}), CONFIG, geometry, state, FRAMES.frames[0])
