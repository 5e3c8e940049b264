r"""Ablation of s3_lite: one part of the network or of its data left out, and a short training.

  s3 convert --model=s3_lite --efficientnet=efficientnet-lite0.pth --seed=0 \
      --output=checkpoints/start
  s3 train --config=configs/ablation_s3_lite.py:without_video --workdir=runs/without_video \
      --config.data_root=data --config.initial_checkpoint=checkpoints/start

The name after the colon says what is left out. Networks, which need a start of their own (the same
name in the first command):
  s3_lite                             nothing
  s3_lite_without_semantic_embedding  detail tokens do not read the class and mean tokens
  s3_lite_without_spatial_dependency  no deformable attention, and no feed-forward layer after it
  s3_lite_multi_head                  plain cross attention instead of the discriminative kind

Data, for the network s3_lite:
  without_video   labelled video
  without_stills  photographs with masks: ECSSD, COCO and BSDS500
  without_scenes  rendered scenes

All runs have equal steps, batches and settings: those of the stage "video" of train_s3_lite.py with
smaller batches and clips. For another seed, change `--seed` above and add `--config.seed=1
--config.stages.video.data.seed=1`. `data_root` holds the folders of train_s3_lite.py, and
`davis2016_dev` for validation.
Hardware: one CPU core for 10 minutes each. Expected score: docs/s3_lite.md. Compare these scores
only with one another, because the training is a fraction of that of s3_lite.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import train_s3_lite
from s3_jax.config import MODELS
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig, StageConfig, ValidationConfig

BASE = "s3_lite"
STEPS = 500
# Kinds of sources that are left out.
DATA = {
    "without_video": ("videos",),
    "without_stills": ("images", "regions"),
    "without_scenes": ("synthetic",),
}


def get_config(name: str = BASE) -> ConfigDict:
    """Return the configuration of one run.

    Raises:
      ValueError: there is no ablation of this name.
    """
    networks = [model for model in MODELS if model.startswith(BASE)]
    if name not in (*networks, *DATA):
        known = ", ".join([*networks, *DATA])
        raise ValueError(f"there is no ablation {name!r}; write one of {known}")
    run = RunConfig(
        MODELS[name if name in networks else BASE],
        (stage(DATA.get(name, ())),),
        validation=ValidationConfig(
            path="davis2016_dev",
            protocol="davis2016",
            short_side=240,
            every=STEPS,
            at_start=False,
        ),
        save_every=250,
    )
    return ConfigDict(run_config.to_dict(run))


def stage(left_out: tuple[str, ...]) -> StageConfig:
    """Return the only stage: short clips of small crops from all kinds of sources but these."""
    video = train_s3_lite.video()
    kept = tuple(source for source in video.data.sources if source.kind not in left_out)
    data = dataclasses.replace(
        video.data, sources=kept, crop=128, num_frames=3, max_objects=2, num_workers=1
    )
    step = dataclasses.replace(
        video.step,
        clip=dataclasses.replace(video.step.clip, num_objects=2),
        loss=dataclasses.replace(video.step.loss, num_points=2_048),
        ema_decay=0.99,
    )
    return dataclasses.replace(
        video, steps=STEPS, batch_size=4, trainable_blocks=(), data=data, step=step
    )
