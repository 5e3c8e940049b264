"""Files written by an earlier version can be loaded, and interrupted runs resumed.

tests/goldens/before/README.md describes how they were made.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from s3_jax.checkpoints.model import load_model, read_header
from s3_jax.config import PropagationConfig
from s3_jax.propagation.session import Session
from s3_jax.training.progress import read_metrics
from s3_jax.training.train import train
from tests.training.tiny_run import MODEL, RUN

ROOT = Path(__file__).parents[1]
FILES = ROOT / "tests" / "goldens" / "before"


def unpack(folder: Path, *names: str) -> Path:
    for name in names:
        with tarfile.open(FILES / f"{name}.tar.xz") as file:
            file.extractall(folder, filter="data")
    return folder


def run(folder: Path, module: str, **flags: object) -> str:
    """Return the output of a command that runs in the folder."""
    command = [sys.executable, "-m", module, *(f"--{name}={x}" for name, x in flags.items())]
    paths = {"PYTHONPATH": str(ROOT), "S3_JAX_CACHE": str(ROOT / ".cache/xla")}
    done = subprocess.run(
        command, cwd=folder, env=os.environ | paths, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def image(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.array(file)


def assert_alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Masks of the same computation, possibly in another order of rounding."""
    assert ours.shape == theirs.shape
    assert np.mean(ours == theirs) > 0.98


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("model"), "model") / "model"


def test_model_checkpoint(model: Path) -> None:
    config, variables = load_model(model)
    assert config == MODEL
    assert read_header(model).metadata == {"made": "before"}
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(variables))


def test_saved_session_goes_on(model: Path, tmp_path: Path) -> None:
    unpack(tmp_path, "session", "segmentation")
    session = Session(*load_model(model), PropagationConfig(mem_every=2))
    session.load(tmp_path / "session.state")
    for t in range(4, 8):
        mask = session.step(image(tmp_path / f"video/frames/{t:05d}.png")).index_mask()
        assert_alike(mask, image(tmp_path / f"session_{t}.png"))


@pytest.mark.slow
def test_half_a_segmentation_goes_on(tmp_path: Path) -> None:
    unpack(tmp_path, "model", "segmentation")
    before = {path.name: path.read_bytes() for path in (tmp_path / "segmented/masks").iterdir()}
    assert len(before) == 4
    said = run(
        tmp_path, "tools.segment", video="video/frames", masks="video/first.png",
        checkpoint="model", output="segmented", mem_every=2, max_mem_frames=3, overlay=False,
    )  # fmt: skip
    assert "8 frames of 64x48, 4 of them now" in said
    for name, content in before.items():
        assert (tmp_path / "segmented/masks" / name).read_bytes() == content
    for t in range(8):
        file = f"masks/{t:05d}.png"
        assert_alike(image(tmp_path / "segmented" / file), image(tmp_path / "whole" / file))


def test_half_a_prediction_goes_on(tmp_path: Path) -> None:
    unpack(tmp_path, "prediction")
    finished = tmp_path / "predicted/Annotations/bus/00004.png"
    written = finished.stat().st_mtime_ns
    said = run(
        tmp_path, "tests.tools.fake_predict", dataset="davis2017-val", data_dir="davis",
        checkpoint="weights", output="predicted", mem_every=7, save_scores=True,
    )  # fmt: skip
    assert "2 videos, 8 frames" in said
    assert finished.stat().st_mtime_ns == written
    assert len(list((tmp_path / "predicted/Annotations/bear").iterdir())) == 3


@pytest.mark.slow
def test_training_goes_on_with_the_same_losses(tmp_path: Path) -> None:
    unpack(tmp_path, "run")
    outcome = train(dataclasses.replace(RUN, keep=1), tmp_path / "run")
    assert outcome.step == 10
    entries = read_metrics(tmp_path / "run/metrics.jsonl")
    losses = [loss for entry in entries for loss in entry["losses"]]
    np.testing.assert_allclose(
        losses, json.loads((tmp_path / "losses.json").read_text()), rtol=1e-3
    )
