"""The whole path of training in under two minutes on two CPU cores: both stages on synthetic video.

  s3 train --config=configs/smoke.py --workdir=runs/smoke
  s3 segment --checkpoint=runs/smoke --video=... --masks=... --output=...

Hardware: any. Expected score: none, 40 steps of a tiny network teach it little; the loss falls.
"""

import os
from typing import Any

from ml_collections import ConfigDict

from s3_jax.config import ModelConfig, ViTConfig
from s3_jax.data.config import DataConfig, SyntheticConfig
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig, StageConfig
from s3_jax.training.step_config import ClipConfig, LossConfig, OptimizerConfig, StepConfig

# Most of the time goes into compiling; without optimisation it is a quarter.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)

TINY = ModelConfig(
    encoder="feature_pyramid",
    vit=ViTConfig(embed_dim=64, depth=2, num_heads=2, position_grid=6),
    num_blocks=1,
    num_queries=4,
    width=48,
    key_dim=16,
    num_heads=2,
    ff_dim=64,
    decoder_dims=(48, 32, 32),
)


def get_config() -> ConfigDict:
    """The run's configuration."""
    static = StageConfig(
        name="static",
        steps=24,
        batch_size=2,
        single_object=True,
        data=_data(num_frames=3, max_objects=1, merge=0.0, scene_frames=1),
        step=_step(num_objects=1, num_ref_frames=2),
    )
    video = StageConfig(
        name="video",
        steps=16,
        batch_size=2,
        data=_data(num_frames=4, max_objects=2, merge=0.5, scene_frames=20),
        step=_step(num_objects=2, num_ref_frames=3),
    )
    run = RunConfig(TINY, (static, video), log_every=4, images_every=40, save_every=8)
    return ConfigDict(run_config.to_dict(run))


def _data(scene_frames: int, **changes: Any) -> DataConfig:
    scenes = SyntheticConfig(height=96, width=128, num_frames=scene_frames, objects=(1, 2))
    return DataConfig(sources=(scenes,), crop=96, **changes)


def _step(**clip: Any) -> StepConfig:
    return StepConfig(
        clip=ClipConfig(**clip),
        loss=LossConfig(num_points=1024),
        optimizer=OptimizerConfig(learning_rate=3e-4, decay="constant", backbone_ratio=1.0),
    )
