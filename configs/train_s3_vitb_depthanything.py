"""S3 with the ViT-B of Depth-Anything, five blocks and eight queries: the released network.

  s3 convert --model=s3_vitb_depthanything_single_object \\
      --vit=depth_anything_vitb14.pth \\
      --mask_encoder_resnet=resnet18-f37072fd.pth --output=checkpoints/s3_vitb_depthanything_start
  s3 train --config=configs/train_s3_vitb_depthanything.py:base \\
      --workdir=runs/s3_vitb_depthanything --config.data_root=DATASETS

The argument after the colon is base, mose or mega; `configs/published.py` tells what is in them.
Hardware: the published batch of 16 on 8 accelerators with 40 GB each (an estimate), or any number
that divides 16; `step.accumulate` and `step.clip.remat_frames` bound the memory.
Expected score: the release claims J&F 87.8 on DAVIS-2017 test-dev, 88.1 on YouTube-VOS 2019,
74.0 on MOSE and 73.0 on LVOS; not measured with this code.
"""

from ml_collections import ConfigDict

from configs.published import published_config


def get_config(data: str = "base") -> ConfigDict:
    """Both stages of the published recipe."""
    return published_config("s3_vitb_depthanything", data)
