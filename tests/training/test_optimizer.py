"""The optimizer against AdamW written out in NumPy."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.models.s3 import S3
from s3_jax.training.optimizer import epsilon, make_optimizer
from s3_jax.training.schedules import learning_rate_schedule
from s3_jax.training.step_config import OptimizerConfig
from tests.support import tiny

MODEL = S3(tiny.CONFIGS["resnet18"])
SETTINGS = OptimizerConfig(
    learning_rate=1e-2, milestones=(2,), weight_decay=0.1, clip_norm=1.0, epsilon=1e-3
)
# One parameter of every group, with its share of the learning rate and its weight decay.
GROUPS = {
    ("image_encoder", "norm", "scale"): (0.1, 0.1),
    ("object_transformer", "query_init"): (1.0, 0.0),
    ("mask_decoder", "pred", "kernel"): (1.0, 0.1),
}


def nested(values: dict[tuple[str, ...], np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        inner = tree
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = jnp.asarray(value, jnp.float32)
    return tree


def test_three_steps_equal_adamw_by_hand() -> None:
    random = np.random.default_rng(0)
    draw = lambda: {path: random.normal(size=4) for path in GROUPS}  # noqa: E731
    values, gradients = draw(), [draw(), draw(), draw()]
    schedule = learning_rate_schedule(SETTINGS)
    optimizer = make_optimizer(SETTINGS, schedule, MODEL)
    params = nested(values)
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(nested(gradient), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    expected = nested(_adamw(values, gradients))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), params, expected)


def _adamw(values: dict, gradients: list[dict]) -> dict:
    """Clip the global norm, then decay decoupled from the moments."""
    first = dict.fromkeys(GROUPS, 0.0)
    second = dict.fromkeys(GROUPS, 0.0)
    for t, gradient in enumerate(gradients, start=1):
        norm = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
        for path, (ratio, decay) in GROUPS.items():
            lr = ratio * SETTINGS.learning_rate * (0.1 if t - 1 >= 2 else 1.0)
            g = gradient[path] * min(1.0, SETTINGS.clip_norm / norm)
            first[path] = 0.9 * first[path] + 0.1 * g
            second[path] = 0.999 * second[path] + 0.001 * g**2
            root = np.sqrt(second[path] / (1 - 0.999**t)) + SETTINGS.epsilon
            step = first[path] / (1 - 0.9**t) / root
            values = values | {path: values[path] - lr * (step + decay * values[path])}
    return values


def test_epsilon_follows_precision_unless_it_is_set() -> None:
    default = OptimizerConfig()
    assert epsilon(default, MODEL) == 1e-8
    assert epsilon(default, MODEL.clone(dtype=jnp.bfloat16)) == 1e-6
    assert epsilon(dataclasses.replace(default, epsilon=1e-5), MODEL) == 1e-5


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"beta2": 1.0}, "beta2"),
        ({"milestones": (5, 3)}, "milestones"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"iterations": 0}, "iterations"),
        ({"weight_decay": -0.1}, "weight_decay"),
    ],
)
def test_settings_refuse_what_cannot_be(change: dict, field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is .*, but must be"):
        OptimizerConfig(**change)
