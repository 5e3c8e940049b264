"""Maps of prompts, and the head that reads them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.models.efficientnet import DetailedMaps, EfficientNetLite0
from s3_jax.models.prompt_head import PromptHead, initial_prompt_head, prompt_head_shapes
from s3_jax.models.prompt_maps import (
    BACKGROUND,
    NONE,
    NUM_MAPS,
    OBJECT,
    Prompts,
    prompt_maps,
    similarities,
)
from s3_jax.models.variables import flatten

SIDE = 64


def prompts(points: list, labels: list, box: tuple | None = None, previous: float | None = None):
    return Prompts(
        jnp.array([points], jnp.float32),
        jnp.array([labels]),
        jnp.array([box or (0, 0, 0, 0)], jnp.float32),
        jnp.array([float(box is not None)]),
        jnp.full((1, SIDE // 2, SIDE // 2), previous or 0.0),
        jnp.array([float(previous is not None)]),
    )


@pytest.mark.parametrize("stride", [2, 4, 8, 16])
def test_marks_are_where_the_clicks_are(stride: int) -> None:
    maps = prompt_maps(prompts([(41, 9), (5, 51), (30, 30)], [OBJECT, BACKGROUND, NONE]), stride)[0]
    assert maps.shape == (SIDE // stride, SIDE // stride, NUM_MAPS)
    for channel, (x, y) in ((0, (41, 9)), (2, (5, 51))):
        row, column = np.unravel_index(np.argmax(maps[..., channel]), maps.shape[:2])
        assert (row, column) == (y // stride, x // stride)
    assert maps[30 // stride, 30 // stride, 0] < 0.2
    assert not maps[..., 4:].any()


def test_a_box_has_an_inside_an_outside_and_an_edge() -> None:
    maps = prompt_maps(prompts([(0, 0)], [NONE], box=(16, 8, 48, 40)), 4)[0]
    inside, outside, edge = (maps[..., i] for i in (4, 5, 6))
    assert inside[6, 8] == 1 and outside[6, 8] == 0 and edge[6, 8] == 0
    assert inside[14, 8] == 0 and outside[14, 8] == 1
    assert edge[6, 4] > 0.5
    assert not maps[..., :4].any()


def test_a_previous_mask_is_signed_and_none_is_zero() -> None:
    sure = prompt_maps(prompts([(0, 0)], [NONE], previous=1.0), 8)[0, ..., 7]
    no = prompt_maps(prompts([(0, 0)], [NONE], previous=1e-9), 8)[0, ..., 7]
    assert (sure == 1).all() and np.allclose(no, -1)


def test_what_is_like_the_clicked_place_is_found() -> None:
    features = jnp.zeros((1, 8, 8, 2)).at[..., 0].set(1.0)
    features = features.at[0, 2:4, 2:4].set(jnp.array([0.0, 3.0]))
    likeness = similarities(features, prompts([(20, 20), (60, 60)], [OBJECT, NONE]), 8)[0]
    assert likeness[3, 3, 0] == pytest.approx(1, abs=1e-3)
    assert likeness[6, 6, 0] == pytest.approx(0, abs=1e-3)
    assert not likeness[..., 1].any()


@pytest.fixture(scope="module")
def network() -> tuple:
    head = initial_prompt_head()
    image = jax.random.uniform(jax.random.key(0), (1, SIDE, SIDE, 3))
    trunk = functools.partial(EfficientNetLite0().init_with_output, method="detailed")
    maps, _ = jax.jit(trunk)(jax.random.key(1), image)
    return head, maps


@pytest.mark.slow
def test_places_without_a_point_change_nothing(network: tuple) -> None:
    head, maps = network
    apply = jax.jit(PromptHead().apply)
    one = apply({"params": head}, maps, prompts([(20, 20), (1, 1)], [OBJECT, NONE]))
    other = apply({"params": head}, maps, prompts([(20, 20), (60, 33)], [OBJECT, NONE]))
    moved = apply({"params": head}, maps, prompts([(44, 20), (60, 33)], [OBJECT, NONE]))
    assert one.fine.shape == (1, SIDE // 2, SIDE // 2)
    np.testing.assert_array_equal(one.fine, other.fine)
    assert np.abs(one.fine - moved.fine).max() > 1e-3


@pytest.mark.slow
def test_shapes_are_those_of_the_parameters(network: tuple) -> None:
    head, maps = network
    assert isinstance(maps, DetailedMaps)
    assert prompt_head_shapes() == {name: x.shape for name, x in flatten(head).items()}
    assert sum(x.size for x in jax.tree.leaves(head)) < 1.3e6
