"""One device, eight devices, and two processes of two devices compute the same training.

The network is a toy whose statistics are of the batch over all replicas; everything around it is
the real step.
"""

import dataclasses
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from s3_jax.models.s3 import S3
from s3_jax.models.variables import variable_shapes
from s3_jax.training.clip import ClipBatch
from s3_jax.training.clip_loss import make_trainer
from s3_jax.training.parallel import REPLICAS, devices_as, join_processes, shard_batch
from s3_jax.training.run_config import Form
from s3_jax.training.step import init_state, train_step
from tests.training import tiny_run, toy
from tests.training.test_checkpoints import save

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TIMEOUT = 600  # seconds, for compiling on a busy machine
Arrays = dict[str, np.ndarray]


def start(
    output: Path, devices: int, *layout: str, module: str = "tests.training.replicas"
) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-m", module, str(output), *layout]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen, output: Path) -> Arrays:
    try:
        log, _ = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert process.returncode == 0, log.decode()[-3000:]
    with np.load(output) as file:
        return dict(file)


def start_module(module: str, output: Path, devices: int) -> Arrays:
    """Return the output of a module that runs on this number of virtual devices."""
    return finish(start(output, devices, module=module), output)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    output = tmp_path_factory.mktemp("one") / "out.npz"
    return finish(start(output, devices=1), output)


def assert_same_training(ours: Arrays, single: Arrays) -> None:
    """Metrics of every step and the state at the end, on each device."""
    assert single["metrics/finite/2"] == 1
    assert single["metrics/total/1"] != single["metrics/total/0"]
    for name, expected in single.items():
        if name.startswith("metrics/"):
            np.testing.assert_allclose(ours[name], expected, rtol=1e-5, atol=1e-6, err_msg=name)
        elif name.startswith(("params/", "batch_stats/")):
            copies = ours[name]
            np.testing.assert_array_equal(copies, np.broadcast_to(copies[:1], copies.shape))
            np.testing.assert_allclose(copies[0], expected[0], rtol=1e-5, atol=1e-6, err_msg=name)


def test_eight_devices_train_as_one(single: Arrays, tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    eight = finish(start(output, devices=8), output)
    assert eight["devices"] == 8
    assert eight["params/mask_decoder"].shape[0] == 8
    assert_same_training(eight, single)
    assert eight["consumed"].all() and single["consumed"].all()  # the old state's memory is reused


def test_two_processes_of_two_devices_train_as_one(single: Arrays, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    outputs = [tmp_path / f"out{i}.npz" for i in range(2)]
    processes = [start(x, 2, coordinator, "2", str(i)) for i, x in enumerate(outputs)]
    try:
        found = [finish(*pair) for pair in zip(processes, outputs, strict=True)]
    finally:
        for process in processes:
            process.kill()
    for ours in found:
        assert ours["devices"] == 4
        assert_same_training(ours, single)
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name], err_msg=name)


@pytest.mark.parametrize("shared", [True, False])
def test_hosts_agree_on_the_checkpoint_that_all_can_read(tmp_path: Path, shared: bool) -> None:
    """Checkpoint 3 is damaged on the shared disk, or on the second of two hosts with own disks."""
    save(tmp_path / "host0", 2, 3)
    if not shared:
        shutil.copytree(tmp_path / "host0", tmp_path / "host1")
    places = [tmp_path / "host0", tmp_path / ("host0" if shared else "host1")]
    (places[1] / "checkpoints/3/training/training.json").write_text("")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    module = "tests.training.hosts"
    hosts = [start(x, 1, coordinator, "2", str(i), module=module) for i, x in enumerate(places)]
    try:
        said = [host.communicate(timeout=TIMEOUT)[0].decode() for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert [host.returncode for host in hosts] == [0, 0], said
    # The second host's own disk gets no checkpoints; orbax writes on the first only.
    for text, here in zip(said, ([3, 4], [3, 4] if shared else [2]), strict=True):
        assert "checkpoint 3 cannot be read" in text
        assert json.loads(text.splitlines()[-1]) == [2, ["3"], 3, here]


@pytest.mark.parametrize("form", ["pmap", "mesh"])
def test_a_model_without_the_axis_is_refused(form: Form) -> None:
    with pytest.raises(ValueError, match="axis_name is None; make it S3"):
        devices_as(form).update(make_trainer(S3(toy.CONFIG), toy.SETTINGS))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_step_passes_the_checks_of_shard_map(accumulate: int) -> None:
    """Trace the whole step, clip and gradients included; types and shapes must fit."""
    settings = dataclasses.replace(tiny_run.VIDEO.step, accumulate=accumulate)
    trainer = make_trainer(S3(tiny_run.MODEL, axis_name=REPLICAS), settings)
    mesh = jax.make_mesh((1,), (REPLICAS,), axis_types=(jax.sharding.AxisType.Auto,))
    spread, equal = PartitionSpec(REPLICAS), PartitionSpec()
    step = jax.shard_map(
        functools.partial(train_step, trainer), mesh=mesh, in_specs=(equal, spread), out_specs=equal
    )

    def run(variables: Any, frames: jax.Array, masks: jax.Array, objects: jax.Array) -> Any:
        before = init_state(trainer, variables, 0)
        after, metrics = step(before, ClipBatch(frames, masks, objects))
        leaves = zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
        assert all(new.shape == old.shape for new, old in leaves)
        return metrics

    metrics = jax.eval_shape(
        run,
        variable_shapes(tiny_run.MODEL),
        jax.ShapeDtypeStruct((2, 2, 32, 32, 3), jnp.uint8),
        jax.ShapeDtypeStruct((2, 2, 32, 32), jnp.uint8),
        jax.ShapeDtypeStruct((2,), jnp.int32),
    )
    assert metrics["total"].shape == ()


def test_rows_must_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.local_device_count", lambda: 2)
    with pytest.raises(ValueError, match="batch of 3 rows per process cannot be divided over 2"):
        shard_batch(toy.batch(3))


def test_a_batch_stays_in_order() -> None:
    batch = toy.batch(4)
    placed = shard_batch(batch)
    assert placed.frames.shape == (1, *batch.frames.shape)
    np.testing.assert_array_equal(jnp.concatenate(placed.frames), batch.frames)


@pytest.mark.parametrize("given", [("a:1", None, None), (None, 2, 0), ("a:1", 2, None)])
def test_half_a_cluster_is_refused(given: tuple) -> None:
    with pytest.raises(ValueError, match="coordinator, processes and process go together"):
        join_processes(*given)
