"""`tools.train` as a user runs it, in processes that are killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from s3_jax.checkpoints.model import find_model, load_model
from s3_jax.conversion.torch_file import read_tensors
from s3_jax.conversion.weights import to_torch
from s3_jax.training.progress import read_metrics
from tests.training.tiny_run import RUN

ROOT = Path(__file__).parents[2]
CONFIG = "tests/training/tiny_run.py"
TRAIN = [sys.executable, "-m", "tools.train", f"--config={CONFIG}"]
SECONDS = 300


def start(workdir, *flags, virtual_devices=1):
    environment = {**os.environ, "S3_JAX_CACHE": str(ROOT / ".cache" / "xla")}
    environment["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={virtual_devices}"
    return subprocess.Popen(
        [*TRAIN, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(workdir, *flags, virtual_devices=1):
    """Exit code, standard output and standard error."""
    process = start(workdir, *flags, virtual_devices=virtual_devices)
    output, errors = process.communicate(timeout=SECONDS)
    return process.returncode, output, errors


def wait_for_step(process, workdir, step):
    """Wait until the log has the step, while the process runs."""
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
    """The run is killed once in either stage."""
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


@pytest.mark.slow
def test_latest_checkpoint_is_the_whole_network(uninterrupted):
    assert find_model(uninterrupted).parent.name == "10"


@pytest.mark.slow
def test_converts_to_a_torch_file(uninterrupted, tmp_path):
    """`tools.convert_checkpoint` takes the latest checkpoint of a run's directory."""
    file = tmp_path / "network.pth"
    command = ["tools.convert_checkpoint", "--to_pytorch", f"--input={uninterrupted}"]
    done = run_tool(*command, f"--output={file}")
    assert done.returncode == 0, done.stderr
    _, variables = load_model(uninterrupted)
    tensors = read_tensors(file)
    expected = to_torch(variables, RUN.model)
    assert set(expected) <= set(tensors)
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name], value)


def run_tool(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), ["--config and --workdir"]),
        ((f"--config={CONFIG}", "--workdir={}", "--config.seeed=1"), ["seeed"]),
        ((f"--config={CONFIG}", "--workdir={}", "--config.order=('film',)"), ["film", "static"]),
        ((f"--config={CONFIG}", "--workdir={}", "--processes=2"), ["coordinator", "together"]),
    ],
)
def test_mistakes_are_a_line(tmp_path, flags, words):
    assert_one_line(run_tool("tools.train", *(flag.format(tmp_path) for flag in flags)), words)


@pytest.mark.slow
def test_another_seed_is_a_line(uninterrupted):
    flags = (f"--config={CONFIG}", f"--workdir={uninterrupted}", "--config.seed=1")
    assert_one_line(run_tool("tools.train", *flags), ["seed was 0, now 1"])


def assert_one_line(done, words):
    assert done.returncode == 1
    for word in words:
        assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_help_teaches():
    done = run_tool("tools.train", "--help")
    for word in ("--config.stages", "--coordinator", "adopt_config", "tensorboard", "goes on"):
        assert word in done.stdout


@pytest.mark.slow
def test_fsdp_on_two_cpu_devices_has_the_losses_of_one(uninterrupted, tmp_path):
    flags = ["--config.devices=fsdp", "--config.order=('static',)"]
    code, _, errors = train(tmp_path, *flags, virtual_devices=2)
    assert code == 0, errors
    found, expected = losses(tmp_path), losses(uninterrupted)
    assert len(found) == 6
    for step, values in found.items():
        np.testing.assert_allclose(values, expected[step], rtol=1e-3)


@pytest.mark.slow
def test_two_processes_share_a_run(uninterrupted, tmp_path):
    """Each process has half of every batch of the first stage.

    Losses are equal to rounding, and there is one set of checkpoints.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = [f"--coordinator=localhost:{port}", "--processes=2", "--config.order=('static',)"]
    processes = [start(tmp_path, *flags, f"--process={i}") for i in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=2 * SECONDS)
        assert process.returncode == 0, errors
    mine, theirs = losses(tmp_path), losses(uninterrupted)
    assert list(mine) == list(theirs)[: len(mine)]
    for step, values in mine.items():
        np.testing.assert_allclose(values, theirs[step], rtol=1e-3)
    assert find_model(tmp_path).parent.name == "6"
    assert load_model(tmp_path)[0].single_object


@pytest.mark.slow
def test_processes_stop_at_the_same_step_when_one_is_asked_to(tmp_path):
    """The first one hears of it with a step of both."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = [f"--coordinator=localhost:{port}", "--processes=2", "--config.log_every=1",
             "--config.stages.static.steps=4000", "--config.save_every=4000"]  # fmt: skip
    processes = [start(tmp_path, *flags, f"--process={i}") for i in range(2)]
    wait_for_step(processes[0], tmp_path, 3)
    processes[1].send_signal(signal.SIGTERM)
    for process in processes:
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
    steps = len(losses(tmp_path))
    assert find_model(tmp_path).parent.name == str(steps)
    assert 3 <= steps < 4000
