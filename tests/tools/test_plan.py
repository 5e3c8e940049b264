"""Messages of the plan command if nothing can be compiled."""

import subprocess
from pathlib import Path

import pytest

from configs import smoke
from s3_jax.analysis.programs import TrainingTask, task_of_stage
from s3_jax.config import MODELS
from s3_jax.errors import InputError
from s3_jax.training import run_config
from s3_jax.training.step_config import MAIN_TRAINING
from tests.support import commands

ROOT = Path(__file__).parent.parent.parent


def _plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.run("tools.plan", *arguments)


def test_a_wrong_topology_is_one_line_that_lists_the_right_ones() -> None:
    done = _plan("--model=s3_vitb", "--topology=v7:2x2")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "--topology=v7:2x2 is unknown" in done.stderr
    assert "v5e" in done.stderr


def test_a_stage_of_a_configuration_becomes_a_task() -> None:
    run = run_config.from_dict(smoke.get_config().to_dict())
    last, first = task_of_stage(run), task_of_stage(run, "static")
    assert (last.crop, last.frames, last.batch_size) == (96, 4, 2)
    assert last.step == run.stages[-1].step
    assert first.model.single_object
    assert first.frames == 3


def test_a_stage_that_does_not_exist_is_named() -> None:
    run = run_config.from_dict(smoke.get_config().to_dict())
    with pytest.raises(InputError, match="--stage=main is none of the configuration's: static, vi"):
        task_of_stage(run, "main")


def test_without_a_configuration_it_is_the_published_main_stage() -> None:
    task = TrainingTask(MODELS["s3_vitb"])
    assert (task.batch_size, task.frames, task.crop, task.dtype) == (16, 8, 480, "bfloat16")
    assert task.step == MAIN_TRAINING
