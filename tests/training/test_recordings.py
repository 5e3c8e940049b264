"""Clips, losses, gradients and optimizer steps equal those of the published code.

Tolerances are those of the recordings' README: 10 max_abs + 1e-6 for logits, 5e-4 after a softmax
for auxiliary logits (some are near saturation), 1e-4 relative for losses at given points, 2e-2
relative for norms of gradients (absolute below 1e-6, where they hold rounding noise), 1e-4 for
BatchNorm statistics.
"""

from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from s3_jax.training.step import apply_gradients
from tests.support.goldens import Recording
from tests.support.marks import slow
from tests.training import recorded

SHIPPED = (
    "s3_resnet18_deep0",
    "s3_resnet18_deep1",
    "s3_resnet18_random_refs",
    "s3_resnet18_single_object",
)
# The kind of points of the gradients that are compared; one program serves deep0 and deep1.
GRADIENTS = {
    "s3_resnet18_deep0": "dense",
    "s3_resnet18_deep1": "dense",
    "s3_resnet18_random_refs": "points",
    "s3_resnet18_single_object": "dense",
}
STEPS = ("s3_resnet18_deep0", "s3_resnet18_deep1")
LARGE = "s3_vitb_depthanything"
VANISHING = 1e-6
# Largest entry of the difference, relative to the largest entry of the gradient: flips of ReLUs.
GRADIENT = 2e-2
# Adam's first steps move a parameter by about lr * sign(gradient). Where the gradient is rounding
# noise the sign is chance, and two runs are up to 2 lr per step apart. Few parameters are, so that
# the mean distance, in lr, stays small after one step and, their effect included, after two.
FURTHEST_APART = 2.1
MEAN_APART = {1: 0.01, 2: 0.05}
# The parameters that flipped change the second step's losses.
SECOND_LOSS = 5e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_forward(name: str, goldens: Path) -> None:
    check_forward(recorded.load_case(goldens, name))


@pytest.mark.slow
def test_forward_of_the_released_model(shared_golden: Path) -> None:
    check_forward(recorded.load_case(shared_golden, LARGE))


def check_forward(case: recorded.Case) -> None:
    """Logits of every frame; losses of them at all pixels and at the recorded points."""
    trainer = recorded.trainer(case)
    state = recorded.initial_state(trainer)
    ours, batch_stats = recorded.run_clip(trainer, state, case, recorded.zero_points(case))
    for t in range(case.frames):
        problem = case.recording.difference(f"logits_{t + 1}", ours.logits[t])
        assert not problem, problem
    theirs = recorded.prediction(case)
    for name in ("sensory_logits", "query_logits"):
        of_ours, of_theirs = (jax.nn.softmax(getattr(x, name), axis=2) for x in (ours, theirs))
        np.testing.assert_allclose(of_ours, of_theirs, atol=5e-4, rtol=0)
    statistics = recorded.by_key(batch_stats, case.config, "batch_stats")
    for key, value in case.recording.below("bn.").items():
        np.testing.assert_allclose(statistics[key], value, atol=1e-4, rtol=0, err_msg=key)
    for kind in ("dense", "points"):
        assert_losses(recorded.losses(case, ours, kind), recorded.recorded_losses(case, kind))


@pytest.mark.parametrize("name", [SHIPPED[0], *map(slow, SHIPPED[1:])])
def test_points_are_chosen_as_recorded(name: str, goldens: Path) -> None:
    """The recorded points and losses follow from the recorded logits and candidates."""
    case = recorded.load_case(goldens, name)
    found, losses = recorded.choose(case)
    expected = np.asarray(recorded.selected_points(case))
    # The order of chosen points is of no meaning; sorted by x they can be compared.
    by_x = lambda x: np.take_along_axis(x, np.argsort(x[..., :1], axis=-2), axis=-2)  # noqa: E731
    np.testing.assert_array_equal(by_x(np.asarray(found)), by_x(expected))
    assert_losses(losses, recorded.recorded_losses(case, "points"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_gradients_and_steps(name: str, goldens: Path) -> None:
    check_training(recorded.load_case(goldens, name), GRADIENTS[name], steps=name in STEPS)


@pytest.mark.slow
def test_gradients_and_steps_of_the_released_model(shared_golden: Path) -> None:
    check_training(recorded.load_case(shared_golden, LARGE), "dense", steps=True)


def check_training(case: recorded.Case, kind: str, steps: bool) -> None:
    """Gradients of every parameter that trains; parameters after one and after two steps."""
    trainer = recorded.trainer(case)
    state = recorded.initial_state(trainer)
    gradients, batch_stats, losses = recorded.gradients(trainer, state, case, kind)
    assert_losses(losses, recorded.recorded_losses(case, kind))
    assert_norms(recorded.by_key(gradients, case.config, "params"), case.recording, kind)
    if kind == "dense":
        total = case.recording["dense.total_grad_norm"]
        np.testing.assert_allclose(optax.tree.norm(gradients), total, rtol=2e-2)
        assert_gradients(recorded.by_key(gradients, case.config, "params"), case.recording)
    if not steps:
        return
    update = jax.jit(lambda *arguments: apply_gradients(trainer, *arguments))
    state = update(state, gradients, batch_stats)
    assert_parameters(case, state.params, 1)
    gradients, batch_stats, losses = recorded.gradients(trainer, state, case, kind)
    assert_losses(losses, recorded.recorded_losses(case, "dense_step2"), SECOND_LOSS)
    assert_parameters(case, update(state, gradients, batch_stats).params, 2)


def assert_losses(
    ours: Mapping[str, jax.Array], theirs: Mapping[str, float], rtol: float = 1e-4
) -> None:
    assert set(ours) == set(theirs)
    wrong = {
        name: (float(ours[name]), theirs[name])
        for name in theirs
        if abs(float(ours[name]) - theirs[name]) > rtol * abs(theirs[name])
    }
    assert not wrong, wrong


def assert_norms(ours: Mapping[str, np.ndarray], recording: Recording, kind: str) -> None:
    """One gradient for every recorded one, of the same norm; none where none is recorded."""
    recorded_norms = dict(
        zip(recording[f"{kind}.grad_keys"], recording[f"{kind}.grad_norms"], strict=True)
    )
    assert set(ours) == {str(key) for key, norm in recorded_norms.items() if norm >= 0}
    found = {key: np.linalg.norm(value.astype(np.float64)) for key, value in ours.items()}
    wrong = {
        key: (norm, recorded_norms[key])
        for key, norm in found.items()
        if abs(norm - recorded_norms[key]) > 2e-2 * recorded_norms[key] + VANISHING
    }
    assert not wrong, wrong


def assert_gradients(ours: Mapping[str, np.ndarray], recording: Recording) -> None:
    for key, expected in recording.below("dense.grad.").items():
        limit = GRADIENT * np.abs(expected).max() + VANISHING
        np.testing.assert_allclose(ours[key], expected, atol=limit, rtol=0, err_msg=key)


def assert_parameters(case: recorded.Case, params: object, step: int) -> None:
    """Compare parameters after a number of optimizer steps."""
    ours = recorded.by_key(params, case.config, "params")
    rate = case.step.optimizer.learning_rate
    for key, expected in case.recording.below(f"param_after_step{step}.").items():
        lr = rate * (0.1 if key.startswith("pixel_encoder.") else 1.0)
        apart = np.abs(ours[key] - expected) / lr
        assert apart.max() <= FURTHEST_APART * step, key
        assert apart.mean() <= MEAN_APART[step], key
