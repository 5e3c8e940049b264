r"""What parts of the network are good for: s3_lite with one left out, equally and briefly trained.

  s3 convert --model=s3_lite_multi_head \
      --efficientnet=efficientnet-lite0.pth --output=checkpoints/multi_head_start
  s3 train --config=configs/ablation_s3_lite.py:s3_lite_multi_head \
      --workdir=runs/multi_head --config.data_root=data \
      --config.initial_checkpoint=checkpoints/multi_head_start

After the colon stands the network's name, the same as in the first command:
  s3_lite                             nothing left out
  s3_lite_without_semantic_embedding  details do not read the class and mean tokens
  s3_lite_without_spatial_dependency  no deformable attention, nor the feed-forward layer after it
  s3_lite_multi_head                  plain in place of discriminative cross attention

Data, seeds, steps and settings are those of the others; `data_root` as for train_s3_lite.py.
Hardware: one CPU core for 15 minutes each. Expected score: 65 to 69 (README), to be compared with
one another only; they are trained for a fraction of what s3_lite was.
"""

from ml_collections import ConfigDict

from configs import train_s3_lite
from s3_jax.config import MODELS
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig, ValidationConfig

BASE = "s3_lite"
STEPS = 600


def get_config(name: str = BASE) -> ConfigDict:
    """The configuration of one of the runs.

    Raises:
      ValueError: there is no such network, or it is no ablation of s3_lite.
    """
    known = [model for model in MODELS if model.startswith(BASE)]
    if name not in known:
        raise ValueError(f"there is no ablation {name!r}; write one of {', '.join(known)}")
    run = RunConfig(
        MODELS[name],
        (
            train_s3_lite.stage(
                "short", STEPS, batch=4, crop=128, frames=3, rate=4e-4, decay="polynomial"
            ),
        ),
        validation=ValidationConfig(
            path="davis2016_dev",
            protocol="davis2016",
            short_side=240,
            every=STEPS,
            at_start=False,
        ),
        log_every=50,
        save_every=250,
    )
    return ConfigDict(run_config.to_dict(run))
