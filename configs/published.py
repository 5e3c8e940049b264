"""The published recipe, shared by the configurations that train one network each.

Static images first, with single objects, then videos (paper section 4.1); the argument says on
which data sets:

  base    DAVIS and YouTube-VOS
  mose    MOSE too
  mega    MOSE, BURST and OVIS too, and longer

`data_root` holds the data sets under the names in `s3_jax/data/recipes.py`, and the network starts
from public weights that `s3 convert` has put together.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from s3_jax.config import MODELS, ModelConfig
from s3_jax.data import recipes
from s3_jax.errors import InputError
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig, StageConfig, ValidationConfig
from s3_jax.training.step_config import MAIN_TRAINING, PRE_TRAINING, StepConfig

MORE_VIDEOS: dict[str, tuple[str, ...]] = {
    "base": (),
    "mose": ("mose",),
    "mega": ("mose", "burst", "ovis"),
}
LONG_MILESTONES = (140_000, 165_000)
READING = {"num_workers": 8}
# Cutie's published rate; S3's is that of MAIN_TRAINING.
CUTIE_LEARNING_RATE = 1e-4


def published_config(name: str, data: str) -> ConfigDict:
    """Both stages for a network of `s3_jax.config.MODELS`.

    data: an argument of the configuration file, see above.

    Raises:
      InputError: there is no such choice of data sets.
    """
    if data not in MORE_VIDEOS:
        raise InputError(f"the argument {data!r} is none of {', '.join(MORE_VIDEOS)}")
    run = RunConfig(
        MODELS[name],
        (pretraining(), main_training(MODELS[name], MORE_VIDEOS[data])),
        validation=ValidationConfig("DAVIS", subset="ImageSets/2017/val.txt", every=5_000),
        data_root="data",
        initial_checkpoint=f"checkpoints/{name}_start",
    )
    return ConfigDict(run_config.to_dict(run))


def pretraining() -> StageConfig:
    """Single objects that move over static images."""
    data = recipes.pretraining(".", **READING)
    return StageConfig("static", data.num_steps, single_object=True, data=data, step=PRE_TRAINING)


def main_training(model: ModelConfig, more: tuple[str, ...]) -> StageConfig:
    """Clips of videos with several objects, in mixed precision."""
    data = recipes.main_training(".", more, **READING)
    changes: dict[str, Any] = {}
    if model.query_attention == "multi_head":
        changes["learning_rate"] = CUTIE_LEARNING_RATE
    if data.num_steps > MAIN_TRAINING.optimizer.iterations:
        changes["milestones"] = LONG_MILESTONES
    return StageConfig("video", data.num_steps, dtype="bfloat16", data=data, step=_step(**changes))


def _step(**changes: Any) -> StepConfig:
    optimizer = dataclasses.replace(MAIN_TRAINING.optimizer, **changes)
    return dataclasses.replace(MAIN_TRAINING, optimizer=optimizer)
