"""Fine-tuning on a folder with few labelled frames, as a user runs it."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from configs import finetune
from s3_jax.benchmarks.validation import score_video
from s3_jax.checkpoints.model import load_model
from s3_jax.data.mixture import Mixture
from s3_jax.errors import InputError
from s3_jax.training.run_config import RunConfig, from_dict
from s3_jax.training.validation import Validator
from tests.data.datasets import make_videos
from tests.tools.fake_session import FakeSession

ROOT = Path(__file__).parents[2]


def run_on(root: Path, labels: str = "ids") -> RunConfig:
    config = finetune.get_config(labels)
    config.data_root = str(root)
    return from_dict(config.to_dict())


def clips_of(run: RunConfig) -> Mixture:
    data = run.stages[0].data
    sources = [dataclasses.replace(source, path=run.data_root) for source in data.sources]
    return Mixture(dataclasses.replace(data, sources=tuple(sources)))


def blacken(root: Path) -> None:
    """Make masks those of one object, 0 and 255."""
    for file in root.glob("Annotations/*/*/*.png"):
        Image.fromarray((np.array(Image.open(file)) > 0) * np.uint8(255)).save(file)


@pytest.mark.parametrize("apart", [12, 6, 4, 1])
def test_any_number_of_labelled_frames_gives_clips(tmp_path: Path, apart: int) -> None:
    clips = clips_of(run_on(make_videos(tmp_path, names="a", annotate_every=apart)))
    assert len(clips) == 8 + len(range(0, 12, apart))  # the video, and its labelled frames
    for entry in (0, len(clips) - 1):
        clip = clips.sample(entry, 0, entry, 0.0)
        assert clip.frames.shape == (4, 192, 192, 3) and clip.num_objects >= 1


def test_masks_of_one_object(tmp_path: Path) -> None:
    blacken(make_videos(tmp_path, names="a", annotate_every=4))
    with pytest.raises(InputError, match="masks hold only 0 and 255, set binary=True"):
        clips_of(run_on(tmp_path)).sample(0, 0, 0, 0.0)
    run = run_on(tmp_path, "binary")
    assert clips_of(run).sample(0, 0, 0, 0.0).num_objects == 1
    validator = Validator(run)
    (scored,) = score_video(FakeSession(), validator._videos[0], validator._rules).objects
    assert scored.frames == ["00004", "00008"]
    with pytest.raises(InputError, match="'mask' is none of ids, binary"):
        finetune.get_config("mask")


def test_a_single_label_leaves_nothing_to_validate_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_videos(tmp_path, names="a", annotate_every=12)
    with pytest.raises(InputError, match=r"480p/a holds a mask of one frame only.*another frame"):
        Validator(run_on(tmp_path))
    make_videos(tmp_path, names="b", annotate_every=6)
    assert [video.name for video in Validator(run_on(tmp_path))._videos] == ["b"]
    assert "leaves out videos with a single mask" in caplog.text


@pytest.mark.slow
def test_two_steps_from_anywhere(tmp_path: Path) -> None:
    make_videos(tmp_path / "mine", names="a", annotate_every=6, objects=1)
    stage = "--config.stages.finetune"
    command = [sys.executable, "-m", "s3_jax", "train", "--config=finetune", "--workdir=run"]
    command += ["--config.data_root=mine", "--config.validation.every=1", f"{stage}.steps=2"]
    command += [f"{stage}.data.crop=64", f"{stage}.data.num_frames=2"]
    command += [f"{stage}.step.frozen=('image_encoder/*',)"]
    paths = {"PYTHONPATH": str(ROOT), "S3_JAX_CACHE": str(ROOT / ".cache" / "xla")}
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "step 0/2: validation J&F-Mean" in done.stdout + done.stderr
    (_, start), (_, best) = load_model("s3_lite"), load_model(tmp_path / "run/best")
    _, last = load_model(tmp_path / "run/checkpoints/2")
    jax.tree.map(np.testing.assert_array_equal, start["batch_stats"], last["batch_stats"])
    frozen = [tree["params"]["image_encoder"] for tree in (start, last)]
    jax.tree.map(np.testing.assert_array_equal, *frozen)
    trained = [jax.tree.leaves(tree["params"]["mask_decoder"]) for tree in (start, last)]
    assert any((before != after).any() for before, after in zip(*trained, strict=True))
    assert jax.tree.structure(best) == jax.tree.structure(start)
