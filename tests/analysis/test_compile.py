"""The real programs, compiled for TPUs that are not attached."""

import dataclasses
from collections.abc import Iterator

import pytest

from s3_jax.analysis.estimate import Estimate, compile_estimate
from s3_jax.analysis.programs import (
    PropagationTask,
    Traced,
    TrainingTask,
    trace_propagation,
    trace_training,
)
from s3_jax.analysis.topology import Topology, has_compiler, open_topology
from s3_jax.config import ModelConfig, PropagationConfig, ViTConfig
from s3_jax.errors import InputError
from s3_jax.training.step_config import ClipConfig, LossConfig, StepConfig

pytestmark = pytest.mark.usefixtures("unchecked")
needs_compiler = pytest.mark.skipif(
    not has_compiler(), reason="the TPU compiler is missing: pip install -r requirements-tpu.txt"
)
TINY = ModelConfig(
    encoder_settings=ViTConfig(embed_dim=24, depth=4, num_heads=3, position_grid=3),
    num_blocks=1,
    num_queries=4,
    width=32,
    key_dim=8,
    num_heads=4,
    ff_dim=64,
    decoder_dims=(32, 16, 16),
)
SETTINGS = StepConfig(ClipConfig(num_objects=2), LossConfig(num_points=64))
TRAINING = TrainingTask(TINY, batch_size=4, frames=3, crop=64, step=SETTINGS)
VIDEO = PropagationTask(
    TINY, (64, 96), objects=2, frames=3,
    config=PropagationConfig(long_term=True, lt_prototypes=4, lt_max_tokens=64,
                             lt_buffer_tokens=16),
)  # fmt: skip


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    yield open_topology("v5e:2x2")


def _compiled(traced: Traced, topology: Topology, devices: int) -> Estimate:
    estimate = compile_estimate(traced, topology.chip, devices)
    assert isinstance(estimate, Estimate)
    return estimate


@needs_compiler
def test_training_step_for_four_chips(topology: Topology) -> None:
    estimate = _compiled(trace_training(TRAINING, topology.devices), topology, 4)
    assert estimate.memory.held["optimizer"] > 1.5 * estimate.memory.held["parameters"]
    assert estimate.headroom > 0.9
    assert estimate.flops > 0
    reduced = sum(one.bytes for one in estimate.collectives)
    assert reduced > 0.5 * estimate.memory.held["parameters"]  # gradients, float32
    in_network = [one for one in estimate.hazards if one.origin.module.startswith("S3.")]
    assert in_network == []


@needs_compiler
def test_propagation_keeps_its_state_on_the_device(topology: Topology) -> None:
    estimate = _compiled(trace_propagation(VIDEO, topology.devices[0]), topology, 1)
    assert estimate.memory.held["video state"] > 0
    assert not [one for one in estimate.hazards if one.kind == "host"]
    assert not estimate.collectives


@needs_compiler
def test_a_batch_that_cannot_be_divided_is_refused(topology: Topology) -> None:
    with pytest.raises(InputError, match="a batch of 6 cannot be divided over 4 devices"):
        trace_training(dataclasses.replace(TRAINING, batch_size=6), topology.devices)
