"""`tools.train` as a user runs it, in processes that are killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from s3_jax.checkpoint import find_model, load_model
from s3_jax.training.progress import read_metrics

ROOT = Path(__file__).parents[2]
CONFIG = "tests/training/tiny_run.py"
TRAIN = [sys.executable, "-m", "tools.train", f"--config={CONFIG}"]
SECONDS = 300


def start(workdir, *flags):
    environment = {**os.environ, "S3_JAX_CACHE": str(ROOT / ".cache" / "xla")}
    return subprocess.Popen(
        [*TRAIN, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(workdir, *flags):
    """Exit code, standard output and standard error."""
    process = start(workdir, *flags)
    output, errors = process.communicate(timeout=SECONDS)
    return process.returncode, output, errors


def wait_for_step(process, workdir, step):
    """Returns when the log has the step, while the process runs."""
    deadline = time.monotonic() + SECONDS
    while not any(e["step"] >= step for e in read_metrics(workdir / "metrics.jsonl")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def losses(workdir):
    """The total loss of every step, by step."""
    entries = read_metrics(workdir / "metrics.jsonl")
    return {entry["step"]: entry["losses"] for entry in entries}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("train") / "whole"
    code, output, errors = train(workdir)
    assert code == 0, errors
    assert "finished 10 steps" in output
    return workdir


def assert_same_network(workdir, other):
    (config, variables), (config_too, variables_too) = load_model(workdir), load_model(other)
    assert config == config_too
    jax.tree.map(np.testing.assert_array_equal, variables, variables_too)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(3, 8)])
def test_killed_and_started_again_gives_the_same_bits(uninterrupted, tmp_path, steps):
    """Killed once in either stage."""
    for step in steps:
        process = start(tmp_path)
        wait_for_step(process, tmp_path, step)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    code, output, errors = train(tmp_path)
    assert code == 0, errors
    assert "going on from step" in output
    assert losses(tmp_path) == losses(uninterrupted)
    assert_same_network(tmp_path, uninterrupted)


def test_latest_checkpoint_is_the_whole_network(uninterrupted):
    assert find_model(uninterrupted).parent.name == "10"
