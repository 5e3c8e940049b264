"""The choices of the queries, derived from the network's own stages."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.config import PropagationConfig
from s3_jax.conversion.weights import from_torch, torch_shapes
from s3_jax.models.attention import MultiHeadAttention
from s3_jax.segmentation.query_attention import WatchedSession
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_queries_that_blend_pixels_show_the_largest_weight():
    config = dataclasses.replace(TINY, query_attention="multi_head", num_blocks=1)
    watched = WatchedSession(config, from_torch(state_dict(torch_shapes(config)), config), CONFIG)
    watched.add(FRAMES.masks[0])
    watched.step(FRAMES.frames[0])
    choices = watched.choices(FRAMES.frames[1])
    assert choices.row.shape == (1, 3, TINY.num_heads, TINY.num_queries)
    assert len(np.unique(choices.row)) > 1
    for slot in range(3):
        rows, columns = choices.row[0, slot] // 16, choices.column[0, slot] // 16
        readable = choices.inside[0, slot][rows.astype(int), columns.astype(int)]
        assert readable[:, : TINY.num_queries // 2].all()


def test_scores_are_those_of_the_attention():
    """The softmax of the scores, applied to the values, is what the module gives."""
    random = np.random.default_rng(0)
    attention = MultiHeadAttention(2)
    query, key = (jnp.asarray(random.normal(size=(1, n, 8)), jnp.float32) for n in (3, 5))
    blocked = jnp.asarray(random.random((1, 1, 3, 5)) < 0.4).at[..., 0].set(False)
    variables = attention.init(jax.random.key(0), query, key, key, blocked)
    expected = attention.apply(variables, query, key, key, blocked)
    _, seen = attention.apply(variables, query, key, key, blocked, mutable=["intermediates"])
    scores = seen["intermediates"]["similarity"][0]
    params = variables["params"]
    values = key @ params["in_kernel"][:, 16:] + params["in_bias"][None, None, 16:]
    weights = jax.nn.softmax(scores / 2, axis=-1)  # 2: the square root of a head's width
    mixed = jnp.einsum("bhqn,bnhd->bqhd", weights, values.reshape(1, 5, 2, 4)).reshape(1, 3, 8)
    found = mixed @ params["out_kernel"] + params["out_bias"][None, None]
    np.testing.assert_allclose(found, expected, atol=1e-5)
