"""A network can overfit a clip, so training and inference fit together."""

import dataclasses

import pytest
from PIL import Image

from configs import smoke
from s3_jax.data.config import ColourConfig, VideoAugmentationConfig, VideoFolderConfig
from s3_jax.data.synthetic import SceneConfig, synthetic_video
from s3_jax.training import run_config
from s3_jax.training.progress import read_metrics
from s3_jax.training.run_config import ValidationConfig
from s3_jax.training.train import train

STILL = VideoAugmentationConfig(
    flip=0.0,
    rotation=0.0,
    shear=0.0,
    crop_area=(1.0, 1.0),
    crop_aspect=(1.0, 1.0),
    clip_colour=ColourConfig(),
    grey=0.0,
    frame_colour=ColourConfig(),
)


def write_clip(root, frames, side):
    """A synthetic video in the layout of DAVIS."""
    scene = SceneConfig(distractors=0, speed=2.0)
    for index, (frame, mask) in enumerate(synthetic_video(frames, side, side, 1, 3, scene)):
        for folder, image, suffix in (("JPEGImages", frame, "png"), ("Annotations", mask, "png")):
            (root / folder / "clip").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / folder / "clip" / f"{index:05d}.{suffix}")


def smoke_run(root):
    """The second stage of the smoke configuration, on one clip, as it is."""
    run = run_config.from_dict(smoke.get_config().to_dict())
    stage = run.stages[1]
    optimizer = dataclasses.replace(
        stage.step.optimizer, learning_rate=1e-3, decay="polynomial", power=0.9
    )
    data = dataclasses.replace(
        stage.data,
        sources=(VideoFolderConfig("."),),
        skips=((0.0, 1),),
        reverse=0.0,
        merge=0.0,
        video=STILL,
    )
    stage = dataclasses.replace(
        stage,
        steps=60,
        batch_size=1,
        data=data,
        step=dataclasses.replace(stage.step, optimizer=optimizer),
    )
    validation = ValidationConfig(".", protocol="generic", every=1_000)
    return dataclasses.replace(
        run,
        stages=(stage,),
        data_root=str(root),
        validation=validation,
        images_every=0,
        save_every=1_000,
    )


@pytest.mark.slow
def test_smoke_run_learns_one_clip_by_heart(tmp_path):
    run = smoke_run(tmp_path)
    write_clip(tmp_path, run.stages[0].data.num_frames, run.stages[0].data.crop)
    train(run, tmp_path / "run")
    measured = [e for e in read_metrics(tmp_path / "run" / "metrics.jsonl") if "validation" in e]
    before, after = (entry["validation"]["J-Mean"] for entry in measured)
    assert before < 0.5
    assert after >= 0.97
