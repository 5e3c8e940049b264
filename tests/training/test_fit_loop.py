"""The loop around steps: non-finite steps are skipped and counted; profiles, speed, memory."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from s3_jax.checkpoints.model import load_model
from s3_jax.errors import InputError
from s3_jax.media.run_json import NAME, read_record
from s3_jax.training.callbacks import Profile
from s3_jax.training.checkpoints import Checkpoints
from s3_jax.training.fit import FitConfig, Outcome, fit
from s3_jax.training.progress import Evaluation, read_metrics
from tests.support.tiny_models import NARROW, tiny_variables

STEPS = 6


@functools.cache
def variables() -> Any:
    return {name: tiny_variables(NARROW)[name] for name in ("params", "batch_stats")}


def loss(variables: Any, batch: Any, rows: Any, key: Any) -> Any:
    """No network: the mean of all parameters, times what the batch says."""
    means = [jnp.mean(x) for x in jax.tree.leaves(variables["params"])]
    return {"total": sum(means, jnp.zeros(())) * batch["scale"].mean()}, variables["batch_stats"]


def run(workdir: Path, bad: tuple[int, ...], **options: Any) -> Outcome:
    def data(step: int) -> Iterator[Any]:
        while True:
            yield {"scale": np.full(2, np.nan if step in bad else 1.0, np.float32)}
            step += 1

    config = FitConfig(log_every=1, save_every=2, max_skipped=1)
    return fit(
        workdir, NARROW, variables(), loss=loss, optimizer=optax.sgd(0.1), data=data, steps=STEPS,
        config=config, **options,
    )  # fmt: skip


def test_one_is_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run(tmp_path, bad=(2,)).step == STEPS
    assert "step 2 of stage training: the loss is not finite; it was skipped" in caplog.text
    assert "(1 skipped so far, of at most 1)" in caplog.text
    with np.load(tmp_path / "bad_batch_training_2.npz") as saved:
        assert np.isnan(saved["scale"]).all()
    with Checkpoints(tmp_path, 1) as checkpoints:
        restored = checkpoints.restore()
    assert (restored.record.stage_step, restored.record.skipped) == (STEPS, 1)
    assert restored.arrays["step"] == STEPS - 1  # of the optimizer
    losses = [entry["losses"][0] for entry in read_metrics(tmp_path / "metrics.jsonl")]
    assert losses[2] is None and losses[3] == pytest.approx(2 * losses[1] - losses[0], rel=1e-3)
    assert read_record(tmp_path / NAME)["finished"]


def test_one_more_stops_the_run_and_the_same_command_does_not_run_into_it_again(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match="step 3 of stage training: the loss is not finite"):
        run(tmp_path, bad=(1, 3))
    steps = len(read_metrics(tmp_path / "metrics.jsonl"))
    with pytest.raises(InputError, match=r"training was stopped: step 3 .*--adopt_config"):
        run(tmp_path, bad=(1, 3))
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == steps
    assert run(tmp_path, bad=(), adopt=True).step == STEPS
    record = read_record(tmp_path / NAME)
    assert record["finished"] and "problem" not in record


def test_without_a_single_good_step_nothing_is_tolerated(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="step 0 of stage training"):
        run(tmp_path, bad=tuple(range(STEPS)))


def test_steps_are_profiled(tmp_path: Path) -> None:
    assert run(tmp_path, bad=(), callbacks=[Profile(2, 4, tmp_path / "profile")]).step == STEPS
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000


def test_speed_and_memory_are_logged(tmp_path: Path) -> None:
    run(tmp_path, bad=())
    entry = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert entry["frames_per_second"] == pytest.approx(2 * entry["steps_per_second"])
    assert 0 <= entry["data_wait"] < entry["seconds"]
    assert entry["host_memory"] > 10**8


def scored(workdir: Path, scores: list[float], steps: int = STEPS, **options: Any) -> Outcome:
    """A run whose evaluations, every second step, give these scores."""
    left = iter(scores)

    def data(step: int) -> Iterator[Any]:
        while True:
            yield {"scale": np.ones(2, np.float32)}

    config = FitConfig(log_every=1, save_every=2, evaluate_every=2, keep_first=True, keep=1,
                       patience=2, export_best=True)  # fmt: skip
    return fit(
        workdir, NARROW, variables(), loss=loss, optimizer=optax.sgd(0.1), data=data, steps=steps,
        evaluate=lambda _: Evaluation(next(left)), config=config, **options,
    )  # fmt: skip


def first_parameter(path: Path) -> Any:
    return jax.tree.leaves(load_model(path)[1]["params"])[0]


def test_a_run_that_only_gets_worse_ends_early_and_exports_what_it_began_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = scored(tmp_path, [0.9, 0.8, 0.7])
    assert (outcome.step, outcome.stopped) == (4, False)
    assert read_record(tmp_path / NAME)["finished"]
    for place in (tmp_path, tmp_path / "best"):
        np.testing.assert_array_equal(
            first_parameter(place), jax.tree.leaves(variables()["params"])[0]
        )
    assert scored(tmp_path, []).step == 4  # given again, it stays finished


def test_the_best_step_is_exported_and_patience_outlasts_an_interruption(tmp_path: Path) -> None:
    assert scored(tmp_path, [0.5, 0.6, 0.4], steps=4).step == 4
    assert scored(tmp_path, [0.3], steps=10, adopt=True).step == 6
    changed = first_parameter(tmp_path / "best") - jax.tree.leaves(variables()["params"])[0]
    assert np.abs(changed).max() > 0
    np.testing.assert_array_equal(first_parameter(tmp_path), first_parameter(tmp_path / "best"))
