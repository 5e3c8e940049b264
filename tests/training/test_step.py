"""The step around the network: accumulation, averages, frozen parameters, non-finite batches."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.conversion.weights import flatten
from s3_jax.models.s3 import S3
from s3_jax.training import clip_loss
from s3_jax.training.clip_loss import make_trainer
from s3_jax.training.parts import Trainer
from s3_jax.training.state import TrainState, evaluation_variables
from s3_jax.training.step import init_state, train_step
from s3_jax.training.step_config import ClipConfig, StepConfig
from tests.support import tiny
from tests.training import toy

VIT = "image_encoder/vit"


@pytest.fixture(autouse=True)
def toy_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """BatchNorm is frozen: results of micro-batches then add up to those of a batch."""
    frozen = functools.partial(toy.run_clip, normalize=False)
    monkeypatch.setattr(clip_loss, "run_clip", frozen)


@functools.cache
def make(**config: Any) -> tuple[Trainer, TrainState]:
    model = S3(toy.CONFIG, trainable_blocks=config.pop("trainable_blocks", ()))
    trainer = make_trainer(model, dataclasses.replace(toy.SETTINGS, **config))
    return trainer, init_state(trainer, toy.variables(), seed=0)


@functools.cache
def compiled(trainer: Trainer) -> Any:
    return jax.jit(functools.partial(train_step, trainer))


def assert_close(ours: Any, theirs: Any, rtol: float = 1e-5) -> None:
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7)


def assert_same(ours: Any, theirs: Any) -> None:
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_accumulation_equals_the_whole_batch() -> None:
    trainer, state = make()
    whole = compiled(trainer)(state, toy.batch(4))
    for parts in (2, 4):
        trainer, state = make(accumulate=parts)
        assert_close(compiled(trainer)(state, toy.batch(4)), whole)


def test_accumulation_refuses_unequal_parts() -> None:
    trainer, state = make(accumulate=3)
    with pytest.raises(ValueError, match=r"batch of 4 cannot be split into 3 .* change accumulate"):
        compiled(trainer)(state, toy.batch(4))


def test_steps_go_on_and_learn() -> None:
    trainer, state = make()
    advance = compiled(trainer)
    losses = []
    for _ in range(15):
        state, metrics = advance(state, toy.batch(4))
        losses.append(float(metrics["total"]))
    assert int(state.step) == 15
    assert losses[-1] < losses[0]
    assert float(metrics["learning_rate"]) == pytest.approx(toy.OPTIMIZER.learning_rate)


def test_step_is_pure() -> None:
    """The step does not change its arguments, and equal arguments give equal results."""
    trainer, state = make(ema_decay=0.5)
    before = [np.array(x) for x in jax.tree.leaves(state)]
    advance = compiled(trainer)
    assert_same(advance(state, toy.batch(4)), advance(state, toy.batch(4)))
    assert_same(jax.tree.leaves(state), before)


def test_state_keeps_structure_shapes_and_types() -> None:
    trainer, state = make(ema_decay=0.5)
    after, _ = compiled(trainer)(state, toy.batch(4))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for x, y in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)


@pytest.mark.slow
def test_step_maps_over_states() -> None:
    """vmap over runs of two seeds gives each run's own result."""
    trainer, first = make()
    second = init_state(trainer, toy.variables(), seed=1)
    seeds = jnp.stack([first.rng, second.rng])

    def advance(rng: jax.Array) -> Any:
        state, metrics = train_step(trainer, first.replace(rng=rng), toy.batch(2))
        return jax.tree.leaves(state), metrics["total"]

    mapped = jax.jit(jax.vmap(advance))(seeds)
    for i, seed in enumerate(seeds):
        assert_close(jax.tree.map(lambda x, i=i: x[i], mapped), jax.jit(advance)(seed))
    totals = mapped[1]
    assert totals[0] != totals[1]  # points are drawn from the seed


@pytest.mark.parametrize(("steps_done", "weight"), [(0, 0.9), (1000, 0.25)])
def test_average_follows_the_parameters(steps_done: int, weight: float) -> None:
    """Quickly at first, then as slowly as it was asked to."""
    trainer, state = make(ema_decay=0.75)
    after, _ = compiled(trainer)(state.replace(step=jnp.int32(steps_done)), toy.batch(4))
    trained = flatten(after.ema)
    old, new = flatten(state.params), flatten(after.params)
    assert set(trained) == {path for path in new if not path.startswith(VIT)}
    for path, mean in trained.items():
        np.testing.assert_allclose(mean, (1 - weight) * old[path] + weight * new[path], rtol=1e-5)
        assert np.any(mean != new[path])
    averaged = flatten(evaluation_variables(after)["params"])
    assert_same(averaged, {**new, **trained})
    assert_same(flatten(evaluation_variables(after, averaged=False)["params"]), new)


def test_no_average_is_kept_unless_asked_for() -> None:
    trainer, state = make()
    after, _ = compiled(trainer)(state, toy.batch(4))
    assert state.ema is None and after.ema is None
    assert evaluation_variables(after)["params"] is after.params


def test_batch_that_is_not_finite_changes_nothing() -> None:
    trainer, state = make(ema_decay=0.5)
    nowhere = lambda *_: jnp.full((4, 2), jnp.nan)  # noqa: E731
    loss = dataclasses.replace(trainer.loss, choose_points=nowhere)
    bad = dataclasses.replace(trainer, loss=loss)
    after, metrics = compiled(bad)(state, toy.batch(4))
    assert float(metrics["finite"]) == 0
    assert not np.isfinite(metrics["total"])
    assert_same(after, state)
    after, metrics = compiled(trainer)(after, toy.batch(4))
    assert float(metrics["finite"]) == 1 and int(after.step) == 1


def test_frozen_parameters_stay_and_have_no_optimizer_state() -> None:
    trainer, state = make()
    after, _ = compiled(trainer)(state, toy.batch(4))
    changed = {
        path
        for path, value in flatten(after.params).items()
        if np.any(value != flatten(state.params)[path])
    }
    assert changed == {path for path in flatten(state.params) if not path.startswith(VIT)}
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(state.opt_state)]
    assert not [path for path in paths if "vit" in path]
    # Two moments for every parameter that trains, and none for the two that do not.
    moments = [path for path in paths if ".mu" in path or ".nu" in path]
    assert len(moments) == 2 * len(changed)


def test_chosen_blocks_of_the_vit_train() -> None:
    trainer, state = make(trainable_blocks=(0,))
    after, _ = compiled(trainer)(state, toy.batch(4))
    old, new = (flatten(x.params["image_encoder"]["vit"]) for x in (state, after))
    assert np.any(new["blocks_0"] != old["blocks_0"])
    np.testing.assert_array_equal(new["cls_token"], old["cls_token"])


def test_single_object_network_refuses_several_objects() -> None:
    model = S3(tiny.CONFIGS["single_object"])
    with pytest.raises(ValueError, match="num_objects is 2, but a single_object network needs 1"):
        make_trainer(model, toy.SETTINGS)


@pytest.mark.parametrize(
    ("make_settings", "field"),
    [
        (lambda: StepConfig(accumulate=0), "accumulate"),
        (lambda: StepConfig(ema_decay=1.0), "ema_decay"),
        (lambda: ClipConfig(num_objects=0), "num_objects"),
        (lambda: ClipConfig(num_ref_frames=0), "num_ref_frames"),
        (lambda: ClipConfig(deep_update_prob=1.5), "deep_update_prob"),
    ],
)
def test_settings_refuse_what_cannot_be(make_settings: Any, field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is .*, but must be"):
        make_settings()
