"""Static pre-training of the small model on the photographs of BSDS500 alone.

  s3 convert --model=s3_lite_single_object \
      --efficientnet=efficientnet-lite0.pth --output=checkpoints/s3_lite_single_object_start
  s3 train --config=configs/pretrain_s3_lite.py --workdir=runs/s3_lite_static \
      --config.data_root=data \
      --config.initial_checkpoint=checkpoints/s3_lite_single_object_start

The first stage of the published recipe in small: a region of a photograph is an object that moves
over two more frames. `data_root` holds `bsds500` (images and region maps), and `davis2016_dev` for
validation. Hardware: one CPU core for 40 minutes.
Expected score: J&F 70 on the DAVIS development sequences (short side 240, their first 30 frames),
12 before training.
"""

import dataclasses

from ml_collections import ConfigDict

from configs import train_s3_lite
from s3_jax.config import MODELS
from s3_jax.data.config import RegionFolderConfig
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig

STEPS = 1_500


def get_config() -> ConfigDict:
    """The run: one stage with single objects."""
    stage = train_s3_lite.stage(
        "static", STEPS, batch=4, crop=160, frames=3, rate=4e-4, decay="polynomial", objects=1
    )
    data = dataclasses.replace(stage.data, sources=(RegionFolderConfig("bsds500"),), merge=0.0)
    stage = dataclasses.replace(stage, single_object=True, data=data)
    long = run_config.from_dict(train_s3_lite.get_config().to_dict())
    validation = dataclasses.replace(long.validation, every=500)
    run = RunConfig(
        MODELS["s3_lite"], (stage,), validation=validation, log_every=25, save_every=250
    )
    return ConfigDict(run_config.to_dict(run))
