"""Segmentation with a network (tiny, random weights): resuming does not change any byte."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3_jax.checkpoints.model import save_model
from s3_jax.config import PropagationConfig
from s3_jax.data.synthetic import synthetic_video
from s3_jax.media.mask_files import MaskEncoding, MaskFiles
from s3_jax.media.palette import voc_palette
from s3_jax.media.video_files import open_video
from s3_jax.media.writers import write_mask
from s3_jax.propagation.session import Session
from s3_jax.segmentation.run_folder import RunFolder
from s3_jax.segmentation.video import Progress, SegmentConfig, segment
from tests.propagation.conftest import TINY
from tests.support import commands
from tests.support.tiny_models import tiny_variables

ROOT = Path(__file__).parents[2]
COUNT = 12
WORKING = PropagationConfig(mem_every=2, max_mem_frames=3)
LONG_TERM = PropagationConfig(
    mem_every=2, long_term=True, lt_max_frames=3, lt_min_frames=2, lt_prototypes=4,
    lt_max_tokens=16, lt_buffer_tokens=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def variables():
    return tiny_variables(TINY)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """frames/ and masks/ of a video in which object 2 is annotated from frame 5 on."""
    folder = tmp_path_factory.mktemp("video")
    for name in ("frames", "masks"):
        (folder / name).mkdir()
    encoding = MaskEncoding("palette", voc_palette().tobytes())
    for t, (frame, ids) in enumerate(synthetic_video(COUNT, 60, 80, 2, seed=1)):
        Image.fromarray(frame).save(folder / "frames" / f"{t:05d}.png")
        if t in (0, 5):
            write_mask(folder / "masks" / f"{t:05d}.png", np.where(ids > (t > 0), ids, 0), encoding)
    return folder


def _run(video, output, variables, config, options, stop_after=COUNT + 1) -> int:
    source = open_video(video / "frames")
    masks = MaskFiles(video / "masks", source.frame_names)
    session = Session(TINY, variables, config)
    steps = iter(range(1, COUNT + 1))
    progress = Progress(stop=lambda: next(steps) >= stop_after)
    done, problem = segment(session, source, masks, RunFolder(output, {}), options, progress)
    assert problem is None
    return done


def _results(output: Path) -> dict[str, bytes]:
    files = [*output.glob("masks/*"), *output.glob("scores/*")]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_videos_on_four_devices_have_the_bytes_of_one(video, variables, tmp_path):
    """Device by device the same program runs, so no bit depends on which one does a video."""
    save_model(tmp_path / "model", TINY, variables)
    names = [f"video{i}" for i in range(4)]
    for name in names:
        (tmp_path / name).symlink_to(video / "frames")
    pairs = [f"--{flag}" for name in names
             for flag in (f"video={tmp_path / name}", f"masks={video / 'masks'}")]  # fmt: skip
    alone = pairs[:2]

    def run(given: list[str], output: Path, devices: int) -> None:
        flags = [*given, f"--checkpoint={tmp_path / 'model'}", f"--output={output}", "--nooverlay"]
        done = subprocess.run(
            [sys.executable, "-m", "tools.segment", *flags, "--all_masks", "--mem_every=2"],
            cwd=ROOT, capture_output=True, text=True, check=False,
            env={**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    run(alone, tmp_path / "one", 1)
    run(pairs, tmp_path / "four", 4)
    for name in names:
        assert _results(tmp_path / "four" / name) == _results(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "options"),
    [
        (WORKING, SegmentConfig(save_scores=True)),
        (LONG_TERM, SegmentConfig(save_scores=True)),
        (PropagationConfig(flip=True, max_internal_size=48), SegmentConfig(short_side=52)),
    ],
    ids=["working", "long_term", "flip_resized"],
)
def test_interrupted_runs_give_the_same_bytes(video, variables, tmp_path, config, options):
    assert _run(video, tmp_path / "whole", variables, config, options) == COUNT
    done = [
        _run(video, tmp_path / "parts", variables, config, options, stop_after)
        for stop_after in (3, 4)
    ]
    assert done == [3, 7]
    assert _run(video, tmp_path / "parts", variables, config, options) == COUNT
    results = _results(tmp_path / "parts")
    assert len(results) == COUNT * (2 if options.save_scores else 1)
    assert results == _results(tmp_path / "whole")


@pytest.fixture(scope="module")
def checkpoint(variables, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_model(path, TINY, variables)
    return path


def _command(**flags) -> subprocess.CompletedProcess:
    words = [f"--{name}={value}" for name, value in flags.items()]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "S3_JAX_CACHE": str(ROOT / ".cache/xla")}
    return commands.run("tools.segment", *words, env=environment)


@pytest.mark.slow
def test_the_whole_command(video, variables, checkpoint, tmp_path):
    """The command does what the library does with the same settings."""
    flags = {"video": video / "frames", "masks": video / "masks", "checkpoint": checkpoint}
    settings = {"mem_every": 2, "max_mem_frames": 3, "save_scores": True}
    result = _command(**flags, **settings, output=tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "12 frames of 80x60" in result.stdout
    _run(video, tmp_path / "library", variables, WORKING, SegmentConfig(save_scores=True))
    assert _results(tmp_path / "out") == _results(tmp_path / "library")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file or directory"),
        (lambda path: path.write_bytes(b"PK"), "is a file, but a checkpoint is a directory"),
        (lambda path: path.mkdir(), "is not a model checkpoint"),
    ],
)
def test_things_that_are_no_checkpoint(video, tmp_path, make, message):
    make(tmp_path / "weights")
    flags = {"video": video / "frames", "masks": video / "masks"}
    result = _command(**flags, checkpoint=tmp_path / "weights", output=tmp_path / "out")
    assert result.returncode == 1
    assert result.stderr.startswith("tools.segment: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint(video, checkpoint, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    largest = max((p for p in copy.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:100])
    flags = {"video": video / "frames", "masks": video / "masks", "checkpoint": copy}
    result = _command(**flags, output=tmp_path / "out")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert str(copy) in result.stderr
    # Nothing was segmented, so the directory is free for the right checkpoint.
    assert not list((tmp_path / "out" / "masks").glob("*"))


@pytest.mark.slow
def test_scores_agree_with_masks(video, variables, tmp_path):
    _run(video, tmp_path, variables, WORKING, SegmentConfig(save_scores=True))
    for t, ids in ((0, [1, 2]), (11, [1, 2])):
        with np.load(tmp_path / "scores" / f"{t:05d}.npz") as scores:
            prob = scores["prob"]
            assert prob.shape == (len(ids) + 1, 60, 80)
            np.testing.assert_allclose(prob.sum(axis=0), 1, atol=1e-5)
            assert scores["ids"].tolist() == ids
        with Image.open(tmp_path / "masks" / f"{t:05d}.png") as mask:
            assert np.array_equal(np.asarray(mask), np.array([0, *ids])[prob.argmax(axis=0)])
