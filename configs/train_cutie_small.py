"""Cutie, S3's ancestor, with a ResNet-18.

  s3 convert --model=cutie_small_single_object \\
      --image_encoder_resnet=resnet18-f37072fd.pth \\
      --mask_encoder_resnet=resnet18-f37072fd.pth --output=checkpoints/cutie_small_start
  s3 train --config=configs/train_cutie_small.py:base \\
      --workdir=runs/cutie_small --config.data_root=DATASETS

The argument after the colon is base, mose or mega; `configs/published.py` tells what is in them.
Hardware: the published batch of 16 on 4 accelerators with 24 GB each (an estimate), or any number
that divides 16; `step.accumulate` and `step.clip.remat_frames` bound the memory.
Expected score: not measured with this code.
"""

from ml_collections import ConfigDict

from configs.published import published_config


def get_config(data: str = "base") -> ConfigDict:
    """Both stages of the published recipe."""
    return published_config("cutie_small", data)
