"""S3 with a ViT-B of DINOv2.

  s3 convert --model=s3_vitb_single_object \\
      --vit=dinov2_vitb14_pretrain.pth \\
      --mask_encoder_resnet=resnet18-f37072fd.pth --output=checkpoints/s3_vitb_start
  s3 train --config=configs/train_s3_vitb.py:base \\
      --workdir=runs/s3_vitb --config.data_root=DATASETS

The argument after the colon is base, mose or mega; `configs/published.py` tells what is in them.
Hardware: the published batch of 16 on 8 accelerators with 40 GB each (an estimate), or any number
that divides 16; `step.accumulate` and `step.clip.remat_frames` bound the memory.
Expected score: not measured with this code.
"""

from ml_collections import ConfigDict

from configs.published import published_config


def get_config(data: str = "base") -> ConfigDict:
    """Both stages of the published recipe."""
    return published_config("s3_vitb", data)
