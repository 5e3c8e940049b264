"""Measurements of scaling, on networks too small to be slow."""

import jax
import pytest

from s3_jax.analysis.programs import TrainingTask
from s3_jax.analysis.scaling import Point
from s3_jax.analysis.workloads import full_state, random_batch, random_variables
from s3_jax.config import PropagationConfig
from s3_jax.training.step_config import MAIN_TRAINING
from tests.propagation.conftest import TINY

pytestmark = pytest.mark.usefixtures("unchecked")


def test_a_full_state_is_one_memory_frame_from_consolidation() -> None:
    config = PropagationConfig(long_term=True, lt_max_tokens=64, lt_prototypes=4,
                               lt_buffer_tokens=16)  # fmt: skip
    state = full_state(TINY, config, (60, 90), objects=2)
    assert state.last_mask.shape == (1, 2, 64, 96)
    assert int(state.memory.long_term_tokens[0]) == 64
    assert int(state.memory.temporary_frames[0]) == state.memory.layout.temporary - 1


def test_rates() -> None:
    point = Point("objects", 2, "", items=5, seconds=2.0, cpu_seconds=0.5, memory_gb=0.1)
    assert point.per_second == 2.5
    assert point.cpu_milliseconds == 100


def test_a_random_batch_is_spread_over_replicas() -> None:
    task = TrainingTask(TINY, batch_size=6, frames=3, crop=32, step=MAIN_TRAINING)
    batch = random_batch(task, replicas=2)
    assert batch.frames.shape == (2, 3, 3, 32, 32, 3)
    assert int(batch.masks.max()) == task.step.clip.num_objects


@pytest.mark.slow
def test_random_variables_are_those_of_the_network() -> None:
    variables = random_variables(TINY)
    assert all(bool(jax.numpy.isfinite(leaf).all()) for leaf in jax.tree.leaves(variables))
    assert variables["params"]["pix_feat_proj"]["kernel"].shape[-1] == TINY.width
