"""Every stage of the network equals what the published network computed with the same weights."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.goldens import Recording, load_recording

pytestmark = pytest.mark.slow

ComputeStages = Callable[[str, Recording], dict[str, np.ndarray]]

# One of each kind of image encoder and query attention; the others need the complete recordings.
IN_REPOSITORY = ("s3_resnet18", "s3_vitb_depthanything", "s3_fpn_vitb", "cutie_small")
ELSEWHERE = ("s3_resnet50", "s3_vitb_mae", "s3_vitl")


@pytest.mark.parametrize("model", IN_REPOSITORY)
def test_stages_equal_recording(
    model: str, recordings: Path, compute_stages: ComputeStages
) -> None:
    compare_all_stages(recordings, model, compute_stages)


@pytest.mark.parametrize("model", ELSEWHERE)
def test_stages_equal_complete_recording(
    model: str, shared_golden: Path, compute_stages: ComputeStages
) -> None:
    compare_all_stages(shared_golden, model, compute_stages)


def compare_all_stages(folder: Path, model: str, compute_stages: ComputeStages) -> None:
    recording = load_recording(folder, f"network_{model}")
    names = [name for name in recording.names if not name.startswith("in.")]
    recording.assert_equal(compute_stages(model, recording), names)
