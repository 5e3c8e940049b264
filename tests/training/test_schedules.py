"""Learning rates and frame skips of every iteration."""

import dataclasses
import json
from pathlib import Path

import pytest

from s3_jax.data import sampling
from s3_jax.data.config import DataConfig
from s3_jax.training.schedules import learning_rate_schedule
from s3_jax.training.step_config import MAIN_TRAINING, PRE_TRAINING, OptimizerConfig

SCHEDULES = {
    "constant (pre_training, base 1e-4)": PRE_TRAINING.optimizer,
    "step base/with-mose/only-mose (main_training, base 5e-5)": MAIN_TRAINING.optimizer,
    "step mega (main_training, base 5e-5)": dataclasses.replace(
        MAIN_TRAINING.optimizer, milestones=(140_000, 165_000), iterations=175_000
    ),
    "poly (not used by any configuration; total 1000)": OptimizerConfig(
        decay="polynomial", iterations=1000, learning_rate=1.0
    ),
}


@pytest.fixture(scope="module")
def recorded(goldens: Path) -> dict:
    return json.loads((goldens / "lr_schedules.json").read_text())


@pytest.mark.parametrize("name", SCHEDULES)
def test_learning_rate_equals_recording(name: str, recorded: dict) -> None:
    config, expected = SCHEDULES[name], recorded[name]
    assert config.learning_rate == expected.get("base_lr", 1.0)
    if config.decay != "constant":  # whose number of iterations decides nothing
        assert config.iterations == expected["iterations"]
    schedule = learning_rate_schedule(config)
    for iteration, factor in expected["factor"].items():
        rate = float(schedule(int(iteration)))
        assert rate == pytest.approx(config.learning_rate * factor, rel=1e-5), iteration


def test_pre_training_is_of_the_recorded_length(recorded: dict) -> None:
    expected = recorded["constant (pre_training, base 1e-4)"]["iterations"]
    assert PRE_TRAINING.optimizer.iterations == expected


def max_skip(iteration: int, iterations: int) -> int:
    return sampling.max_skip(DataConfig().skips, iteration / iterations, 1)


@pytest.mark.parametrize("iterations", [125_000, 175_000])
def test_max_skip_changes_at_the_recorded_iterations(iterations: int, recorded: dict) -> None:
    expected = recorded["max_skip (main_training)"]
    changes = expected[f"change_iterations_{iterations}"]
    for index, (start, value) in enumerate(zip(changes, expected["values"], strict=True)):
        assert max_skip(start, iterations) == value
        if index:
            assert max_skip(start - 1, iterations) == expected["values"][index - 1]
    assert max_skip(iterations - 1, iterations) == expected["values"][-1]


@pytest.mark.parametrize(("values", "fractions"), [((10, 5), (0.5, 0.1)), ((5,), (0.1,)), ((), ())])
def test_max_skip_refuses_what_has_no_meaning(values: tuple, fractions: tuple) -> None:
    with pytest.raises(ValueError, match="ascend from 0"):
        DataConfig(skips=tuple(zip(fractions, values, strict=True)))


@pytest.mark.parametrize("decay", ["constant", "polynomial"])
def test_the_rate_warms_up_in_a_line(decay) -> None:
    config = OptimizerConfig(learning_rate=1.0, decay=decay, iterations=1000, warm_up=10)
    cold = learning_rate_schedule(dataclasses.replace(config, warm_up=0))
    warm = learning_rate_schedule(config)
    shares = [float(warm(i) / cold(i)) for i in (0, 4, 9, 500)]
    assert shares == pytest.approx([0.1, 0.5, 1.0, 1.0])
