"""Programs over four devices exchange no data where none is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s3_jax.analysis.spreading import count_collectives

ROOT = Path(__file__).parents[2]
TINY = """
import json
import jax
jax.config.update("jax_num_cpu_devices", 4)
from s3_jax.analysis.programs import TrainingTask
from s3_jax.analysis.spreading import FORMS, training_program, video_programs
from s3_jax.config import PropagationConfig
from s3_jax.training.step_config import StepConfig, ClipConfig, LossConfig
from tests.training.tiny_run import MODEL
long = PropagationConfig(mem_every=1, long_term=True, lt_max_frames=4, lt_min_frames=2,
                         lt_prototypes=8, lt_max_tokens=40, lt_buffer_tokens=8)
task = TrainingTask(MODEL, 4, frames=2, crop=32, dtype="float32",
                    step=StepConfig(ClipConfig(num_objects=1), LossConfig(num_points=64)))
programs = [*video_programs(MODEL, long, (64, 96), 2),
            *(training_program(task, form) for form in FORMS)]
print(json.dumps({one.name: (one.collectives, one.state) for one in programs}))
"""


@pytest.fixture(scope="module")
def programs() -> dict[str, tuple[dict[str, int], int]]:
    """Collectives by kind, and bytes of the state on a device, of programs over four devices."""
    flags = "--xla_backend_optimization_level=0"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-c", TINY], cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["step", "scan"])
def test_videos_on_devices_of_their_own_exchange_nothing(programs: dict, name: str) -> None:
    assert programs[name][0] == {}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pmap", "mesh"])
def test_a_training_step_only_adds_up(programs: dict, form: str) -> None:
    """Clips stay on their devices; gradients and statistics are summed over all."""
    assert set(programs[form][0]) == {"all-reduce"}


@pytest.mark.slow
def test_a_state_that_is_spread_takes_a_quarter_of_each_device(programs: dict) -> None:
    """Beside arrays that are too small to be worth it."""
    (_, whole), (_, mesh), (_, spread) = (programs[form] for form in ("pmap", "mesh", "fsdp"))
    assert mesh == whole
    assert spread <= 1.1 * whole / 4


@pytest.mark.slow
def test_a_state_that_is_spread_is_gathered_not_reshuffled(programs: dict) -> None:
    """Activations keep to the rows of a device; only parameters and sums are exchanged."""
    assert set(programs["fsdp"][0]) == {"all-gather", "all-reduce"}


def test_collectives_are_counted_in_every_computation() -> None:
    text = """HloModule m

%body (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %g = f32[4]{0} all-gather-start(f32[4]{0} %p), dimensions={0}
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %x = f32[4]{0} parameter(0)
  %r = f32[4]{0} all-reduce(f32[4]{0} %x), to_apply=%body
  ROOT %s = f32[4]{0} add(f32[4]{0} %r, f32[4]{0} %r)
}
"""
    assert count_collectives(text) == {"all-gather": 1, "all-reduce": 1}
