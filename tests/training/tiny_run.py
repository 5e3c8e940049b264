"""The smallest run of both stages, which is also a configuration file for `tools.train`."""

import dataclasses

from ml_collections import ConfigDict

from s3_jax.config import ModelConfig, ViTConfig
from s3_jax.data.config import DataConfig, SyntheticConfig
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig, StageConfig
from s3_jax.training.step_config import ClipConfig, LossConfig, OptimizerConfig, StepConfig

MODEL = ModelConfig(
    encoder="feature_pyramid",
    encoder_settings=ViTConfig(embed_dim=32, depth=1, num_heads=1, position_grid=2),
    num_blocks=1,
    num_queries=2,
    width=16,
    key_dim=8,
    num_heads=1,
    ff_dim=16,
    decoder_dims=(16, 16, 16),
)
SCENES = SyntheticConfig(height=40, width=56, num_frames=6, scenes=20, objects=(1, 1))
STATIC = StageConfig(
    name="static",
    steps=6,
    batch_size=2,
    single_object=True,
    data=DataConfig(
        sources=(dataclasses.replace(SCENES, num_frames=1),),
        crop=32,
        num_frames=2,
        max_objects=1,
        merge=0.0,
    ),
    step=StepConfig(
        clip=ClipConfig(num_objects=1, num_ref_frames=1),
        loss=LossConfig(num_points=64),
        optimizer=OptimizerConfig(learning_rate=1e-3, decay="constant"),
    ),
)
VIDEO = dataclasses.replace(
    STATIC,
    name="video",
    steps=4,
    single_object=False,
    data=dataclasses.replace(STATIC.data, sources=(SCENES,)),
)
RUN = RunConfig(MODEL, (STATIC, VIDEO), log_every=1, images_every=0, save_every=2, keep=2)


def get_config() -> ConfigDict:
    """The run as `tools.train` reads it."""
    return ConfigDict(run_config.to_dict(RUN))
