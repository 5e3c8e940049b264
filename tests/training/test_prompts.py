"""Training of the prompt head: pictures in memory, views, simulated clicks."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from s3_jax.data.prompt_pictures import (
    HELD_OUT_EVERY,
    PictureFolderConfig,
    held_out_objects,
    load_pictures,
)
from s3_jax.errors import InputError
from s3_jax.models.prompt_head import PromptLogits
from s3_jax.models.prompt_maps import BACKGROUND, NONE, OBJECT, Prompts
from s3_jax.training.prompts.clicks import (
    STRIDE,
    ClickConfig,
    add_click,
    first_prompts,
    inner_distance,
    spoil,
)
from s3_jax.training.prompts.loss import PromptLossConfig, entropy, stage_losses
from s3_jax.training.prompts.views import ViewConfig, draw_views

SIDE = 24  # of maps at the clicks' stride


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Pictures with a red object 1 on blue, and an object 255 that is unknown."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for i in range(HELD_OUT_EVERY + 1):
        ids = np.zeros((60, 80), np.uint8)
        ids[20:40, 10 + i : 30 + i] = 1
        ids[50:, 60:] = 255
        image = np.where(ids[..., None] == 1, (250, 0, 0), (0, 0, 250)).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{i:02d}.jpg", quality=98)
        Image.fromarray(ids).save(tmp_path / "masks" / f"{i:02d}.png")
    return tmp_path


FOLDER = PictureFolderConfig("images", "masks", 1.0)


def test_pictures_know_their_objects_and_leave_out_those_held_out(root: Path) -> None:
    pictures = load_pictures(root, [FOLDER])
    assert len(pictures.places) == HELD_OUT_EVERY - 1  # the first and the last are kept apart
    assert pictures.places[0].tolist() == [0, 60, 80, 1]
    assert pictures.boxes[0].tolist() == [11, 20, 31, 40]
    assert pictures.upto[-1] == pytest.approx(1)
    kept = [name for name, _, _ in held_out_objects(root, FOLDER)]
    assert kept == ["images/00", f"images/{HELD_OUT_EVERY}"]


def test_a_folder_without_objects_is_refused(root: Path) -> None:
    empty = PictureFolderConfig("images", "masks", 1.0, smallest=0.9)
    with pytest.raises(InputError, match="no picture with an object in masks"):
        load_pictures(root, [empty])


def test_views_show_the_object_in_its_colour(root: Path) -> None:
    config = ViewConfig(size=64, colour=0.0)
    views = draw_views(
        load_pictures(root, [FOLDER]), jax.random.split(jax.random.key(0), 8), config
    )
    on = np.asarray(views.truth > 0.9)
    assert on.any((1, 2)).all() and (on.mean((1, 2)) < 0.95).all()
    image = np.asarray(views.image)
    assert image[on][:, 0].mean() > 0.9 and image[on][:, 2].mean() < 0.1
    assert np.asarray(views.known)[on].min() > 0.9
    assert len({x.tobytes() for x in image}) == 8


def test_inner_distance_is_that_of_a_square() -> None:
    mask = np.zeros((1, SIDE, SIDE), bool)
    mask[0, 4:15, 4:15] = True
    depth = np.asarray(inner_distance(jnp.asarray(mask)))[0]
    assert depth.max() == depth[9, 9] == 6
    assert depth[4, 9] == 1 and depth[5, 9] == 2 and depth[0, 0] == 0


def square(left: int, right: int) -> jax.Array:
    return jnp.zeros((1, SIDE, SIDE)).at[0, 6:18, left:right].set(1.0)


@pytest.mark.parametrize(
    ("truth", "guess", "label", "columns"),
    [
        (square(4, 20), square(4, 8), OBJECT, (8, 20)),  # most of it is missing
        (square(4, 8), square(4, 20), BACKGROUND, (8, 20)),  # too much was taken
    ],
)
def test_a_click_goes_to_the_error(truth, guess, label, columns) -> None:
    nothing = Prompts(
        jnp.zeros((1, 3, 2)), jnp.full((1, 3), NONE), jnp.zeros((1, 4)), jnp.zeros(1),
        jnp.zeros((1, 2 * SIDE, 2 * SIDE)), jnp.zeros(1),
    )  # fmt: skip
    known, wanted = jnp.ones_like(truth), jnp.ones(1, bool)
    for seed in range(5):
        key = jax.random.key(seed)
        asked = add_click(nothing, 1, wanted, truth, guess, known, jnp.full(1, 0.9), key)
        assert asked.labels[0].tolist() == [NONE, label, NONE]
        x, y = asked.points[0, 1] / STRIDE
        assert columns[0] + 3 <= x <= columns[1] - 3 and 9 <= y <= 15
    unknown = add_click(nothing, 1, wanted, truth, guess, 0 * known, jnp.full(1, 0.9), key)
    right = add_click(nothing, 1, wanted, truth, truth, known, jnp.full(1, 0.9), key)
    assert unknown.labels.max() == right.labels.max() == NONE


def test_views_begin_with_a_click_a_box_a_mask_or_several_clicks() -> None:
    config = ClickConfig()
    truth = jnp.zeros((64, 2 * SIDE, 2 * SIDE)).at[:, 10:30, 12:40].set(1.0)
    said = first_prompts(truth, jnp.ones_like(truth), jax.random.key(0), config)
    points = np.asarray((said.labels != NONE).sum(1))
    boxed, given = np.asarray(said.boxed) > 0, np.asarray(said.given) > 0
    assert boxed.any() and given.any() and not (boxed & given).any()
    assert (points[boxed] == 0).all() and (points[~boxed & ~given] >= 1).all()
    assert set(points) > {0, 1, 2} and points.max() <= config.several
    assert np.abs(np.asarray(said.box)[boxed] - (24, 20, 80, 60)).max() <= 6
    assert (np.asarray(said.labels)[~boxed & ~given][:, 0] == OBJECT).all()


def test_a_spoilt_mask_is_like_the_mask_and_not_it() -> None:
    truth = jnp.zeros((8, 48, 48)).at[:, 10:30, 12:40].set(1.0)
    found = np.asarray(spoil(truth, jax.random.key(1)))
    assert ((found >= 0) & (found <= 1)).all()
    same = ((found > 0.5) == np.asarray(truth > 0.5)).mean((1, 2))
    assert (same > 0.6).all() and same.min() < 0.99


def test_losses_are_small_where_the_logits_are_right() -> None:
    truth = jnp.zeros((2, 32, 32)).at[:, 8:24, 8:24].set(1.0)
    maps = [10 * (2 * truth - 1), 10 * (2 * truth[:, 2::4, 2::4] - 1)]
    maps.append(10 * (2 * truth[:, 4::8, 4::8] - 1))
    right = stage_losses(PromptLogits(*maps), truth, jnp.ones_like(truth), PromptLossConfig())
    opposite = PromptLogits(*(-x for x in maps))
    wrong = stage_losses(opposite, truth, jnp.ones_like(truth), PromptLossConfig())
    assert right["total"] < 0.05 < 1 < wrong["total"]


def test_what_is_unknown_costs_nothing() -> None:
    logits, truth = jnp.full((1, 8, 8), 9.0), jnp.zeros((1, 8, 8))
    known = jnp.zeros((1, 8, 8))
    assert entropy(logits, truth, known, 1.0) == 0
    assert entropy(logits, truth, known.at[0, 0, 0].set(1.0), 1.0) > 0
