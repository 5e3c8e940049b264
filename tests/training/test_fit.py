"""Training with parts from outside the package, as docs/train_in_parts.md shows it."""

import os
import re
import signal
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from s3_jax.checkpoints.model import find_model, load_model
from s3_jax.conversion.weights import flatten
from s3_jax.errors import InputError
from s3_jax.training.parts import StepDone
from s3_jax.training.progress import read_metrics

PAGE = Path(__file__).parents[2] / "docs" / "train_in_parts.md"
STEPS = 4


@pytest.fixture(scope="module")
def page() -> Any:
    """The file on the page, as a module."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    module = types.ModuleType("my_training")
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    return module


@pytest.fixture(scope="module")
def whole(page: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    workdir = tmp_path_factory.mktemp("whole")
    outcome = page.main(workdir, STEPS)
    assert (outcome.step, outcome.stopped) == (STEPS, False)
    return workdir


def losses(workdir: Path) -> list[float]:
    entries = read_metrics(workdir / "metrics.jsonl")
    return [loss for entry in entries for loss in entry.get("losses", [])]


@pytest.mark.slow
def test_a_loss_an_optimizer_and_a_validation_of_ones_own(page: Any, whole: Path) -> None:
    assert len(set(losses(whole))) == STEPS
    scores = [e["validation"]["score"] for e in read_metrics(whole / "metrics.jsonl")
              if "validation" in e]  # fmt: skip
    assert len(scores) == 2 and all(0 < score <= 1 for score in scores)
    model, variables = load_model(whole)
    assert model == page.MODEL
    before, after = flatten(page.VARIABLES["params"]), flatten(variables["params"])
    changed = {path for path in after if np.any(after[path] != before[path])}
    assert changed
    assert not [path for path in changed if path.startswith("image_encoder")]


@pytest.mark.slow
def test_stopped_and_started_again_it_comes_to_the_same_bytes(
    page: Any, whole: Path, tmp_path: Path
) -> None:
    def stop(done: StepDone) -> None:
        if done.total == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    outcome = page.main(tmp_path, STEPS, callbacks=[stop])
    assert (outcome.step, outcome.stopped) == (2, True)
    assert page.main(tmp_path, STEPS).step == STEPS
    assert losses(tmp_path) == losses(whole)
    assert find_model(tmp_path).parent.name == str(STEPS)
    mine, theirs = load_model(tmp_path)[1], load_model(whole)[1]
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)


@pytest.mark.slow
def test_a_directory_of_another_network_is_refused(page: Any, whole: Path) -> None:
    with pytest.raises(InputError, match=r"another seed \(0, now 1\)"):
        page.fit(
            whole, page.MODEL, page.VARIABLES, loss=page.loss, optimizer=page.OPTIMIZER,
            data=page.data, steps=STEPS, seed=1,
        )  # fmt: skip


@pytest.mark.slow
def test_data_that_end_too_early_are_told_and_what_was_learnt_kept(
    page: Any, whole: Path, tmp_path: Path
) -> None:
    def three(step: int) -> Any:
        return iter([next(page.data(i)) for i in range(step, 3)])

    with pytest.raises(InputError, match=r"end after 3 of 4 steps"):
        page.fit(
            tmp_path, page.MODEL, page.VARIABLES, loss=page.loss, optimizer=page.OPTIMIZER,
            data=three, steps=STEPS, trains=lambda path: path[0] != "image_encoder",
        )  # fmt: skip
    assert losses(tmp_path) == losses(whole)[:3]
    assert find_model(tmp_path).parent.name == "3"
