"""The demo as a user runs it, and checkpoints by name in every command."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from s3_jax.checkpoints import model as checkpoints
from s3_jax.checkpoints.model import save_model
from s3_jax.data.config import DataConfig, SyntheticConfig
from s3_jax.demo import clip
from s3_jax.training.run_config import RunConfig, StageConfig
from s3_jax.training.stages import first_variables
from s3_jax.training.step_config import ClipConfig, StepConfig
from tests.benchmarks.benchmark_files import make_davis
from tests.support import commands
from tests.support.tiny_models import TINY_RESNET, tiny_variables

ROOT = Path(__file__).parents[2]
NAME = "a_name"


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> Path:
    """A directory with a checkpoint under a name."""
    path = tmp_path_factory.mktemp("shipped")
    save_model(path / NAME, TINY_RESNET, tiny_variables(TINY_RESNET))
    return path


@pytest.fixture(scope="module")
def davis(tmp_path_factory) -> Path:
    """A data set with one video of three small frames."""
    path = tmp_path_factory.mktemp("davis")
    make_davis(path, {"bear": 3})
    return path


def _run(module: str, *arguments: str, **environment: object) -> subprocess.CompletedProcess:
    settings = {"JAX_PLATFORMS": "cpu", "S3_JAX_CACHE": str(ROOT / ".cache/xla")}
    settings |= {name: str(value) for name, value in environment.items()}
    return commands.run(module, *arguments, env=os.environ | settings)


def test_the_clip(tmp_path):
    """A stand-in for tools.segment leaves the true masks."""
    result = _run("tests.tools.fake_demo", "--checkpoint=theirs", f"--output={tmp_path}")
    assert result.returncode == 0, result.stderr
    command, *report, where = result.stdout.splitlines()
    assert command == str([
        "tools.segment", f"--video={clip.VIDEO}", f"--masks={clip.FIRST_MASK}",
        "--checkpoint=theirs", f"--output={tmp_path / 'result'}", "--overwrite",
    ])  # fmt: skip
    assert report == clip.report(clip.compare(clip.true_masks(), clip.true_masks())).splitlines()
    assert where.startswith(f"Look at {tmp_path / 'result/overlay.mp4'}")


def test_what_is_run_without_a_checkpoint(tmp_path):
    result = _run("tests.tools.fake_demo", f"--output={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert "'--checkpoint=s3_lite'" in result.stdout


@pytest.mark.slow
def test_a_video_of_yours(shipped, davis, tmp_path):
    video, mask = davis / "JPEGImages/480p/bear", davis / "Annotations/480p/bear/00000.png"
    arguments = (f"--video={video}", f"--mask={mask}", f"--checkpoint={shipped / NAME}")
    result = _run("tools.demo", *arguments, f"--output={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert "$ python -m tools.segment --video=" in result.stdout
    assert "3 frames of " in result.stdout
    assert "Agreement" not in result.stdout
    assert (tmp_path / "result/overlay.mp4").stat().st_size > 0
    assert len(list((tmp_path / "result/masks").iterdir())) == 3


def test_video_and_mask_belong_together(tmp_path):
    result = _run("tools.demo", "--video=cats.mp4", f"--output={tmp_path / 'out'}")
    assert result.returncode == 1
    assert result.stderr == (
        "tools.demo: --video and --mask belong together: give both or neither\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_segment_by_name(shipped, davis, tmp_path):
    video, mask = davis / "JPEGImages/480p/bear", davis / "Annotations/480p/bear/00000.png"
    flags = ("tools.segment", f"--video={video}", f"--masks={mask}", f"--output={tmp_path / 'out'}")
    result = _run("tests.tools.with_shipped", *flags, "--checkpoint=another", SHIPPED=shipped)
    assert result.returncode == 1
    assert f"no checkpoint of that name comes with s3_jax (there are: {NAME})" in result.stderr
    result = _run("tests.tools.with_shipped", *flags, f"--checkpoint={NAME}", SHIPPED=shipped)
    assert result.returncode == 0, result.stderr
    assert re.search(r"3 of them now, the first 2 after [\d.]+ s, then [\d.]+ ", result.stdout)


@pytest.mark.slow
def test_predict_by_name(shipped, davis, tmp_path):
    arguments = ("--dataset=davis2017-val", f"--data_dir={davis}",
                 f"--checkpoint={NAME}", f"--output={tmp_path / 'out'}")  # fmt: skip
    result = _run("tests.tools.with_shipped", "tools.predict", *arguments, SHIPPED=shipped)
    assert result.returncode == 0, result.stderr
    assert "1 videos, 3 frames" in result.stdout
    settings = json.loads((tmp_path / "out/run.json").read_text())["settings"]
    assert settings["checkpoint"].startswith(NAME)


@pytest.mark.slow
def test_convert_by_name(shipped, tmp_path):
    output = tmp_path / "network.safetensors"
    arguments = ("--to_pytorch", f"--input={NAME}", f"--output={output}")
    result = _run("tests.tools.with_shipped", "tools.convert_checkpoint", *arguments,
                  SHIPPED=shipped)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert output.stat().st_size > 10**6


def test_train_from_a_name(shipped, monkeypatch):
    monkeypatch.setattr(checkpoints, "SHIPPED", shipped)
    data = DataConfig(sources=(SyntheticConfig(),), crop=32, num_frames=3, max_objects=1)
    stage = StageConfig("one", 1, 1, data=data, step=StepConfig(clip=ClipConfig(num_objects=1)))
    run = RunConfig(TINY_RESNET, (stage,), initial_checkpoint=NAME)
    found, expected = first_variables(run)["params"], tiny_variables(TINY_RESNET)["params"]
    assert np.array_equal(found["object_transformer"]["query_init"],
                          expected["object_transformer"]["query_init"])  # fmt: skip


def test_an_earlier_result_is_kept(tmp_path):
    earlier = tmp_path / "result" / "run.json"
    earlier.parent.mkdir()
    earlier.write_text("{}")
    result = _run("tests.tools.fake_demo", f"--output={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert f"are kept; this one goes to {tmp_path / 'result_2'}" in result.stdout
    assert earlier.read_text() == "{}"
    assert list((tmp_path / "result_2/masks").iterdir())
