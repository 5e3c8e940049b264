"""The small model that comes with the package, trained on photographs and made-up scenes only.

  python -m tools.convert_checkpoint --model=s3_lite --efficientnet=efficientnet-lite0.pth \
      --output=checkpoints/s3_lite_start
  python -m tools.train --config=configs/train_s3_lite.py --workdir=runs/s3_lite \
      --config.data_root=data --config.initial_checkpoint=checkpoints/s3_lite_start

`data_root` holds `bsds500` (images and region maps) and `imagenet_samples` (pictures), and
`davis2016_dev` for validation. Hardware: two CPU cores for two hours, or any accelerator.
Expected score: see the README of s3_jax/checkpoints/s3_lite, which is this run's result.
"""

from ml_collections import ConfigDict

from s3_jax.config import MODELS
from s3_jax.data.config import (
    DataConfig,
    ImageAugmentationConfig,
    RegionFolderConfig,
    SyntheticConfig,
    VideoAugmentationConfig,
)
from s3_jax.data.synthetic import SceneConfig
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig, StageConfig, ValidationConfig
from s3_jax.training.step_config import (
    ClipConfig,
    Decay,
    LossConfig,
    OptimizerConfig,
    StepConfig,
)

PICTURES = "imagenet_samples"


def get_config() -> ConfigDict:
    """The run: short clips, then longer and larger ones, then look-alikes that cross."""
    stages = (
        stage("short", 1_850, batch=4, crop=160, frames=3, rate=4e-4, decay="constant"),
        stage("long", 1_400, batch=2, crop=192, frames=5, rate=3e-4, decay="polynomial"),
        stage(
            "crossing",
            320,
            batch=2,
            crop=192,
            frames=4,
            rate=2e-4,
            decay="polynomial",
            objects=3,
            scenes=(_scenes(0.3), _scenes(0.8, objects=(2, 3), multiplier=2)),
        ),
    )
    run = RunConfig(
        MODELS["s3_lite"],
        stages,
        validation=ValidationConfig(
            path="davis2016_dev",
            protocol="davis2016",
            short_side=240,
            max_frames=30,
            every=1_000,
        ),
        log_every=50,
        save_every=250,
    )
    return ConfigDict(run_config.to_dict(run))


def stage(
    name: str,
    steps: int,
    *,
    batch: int,
    crop: int,
    frames: int,
    rate: float,
    decay: Decay,
    objects: int = 2,
    scenes: tuple[SyntheticConfig, ...] | None = None,
) -> StageConfig:
    """A stage; of scenes, those with few look-alikes if none are given."""
    return StageConfig(
        name=name,
        steps=steps,
        batch_size=batch,
        data=_data(crop, frames, objects, scenes or (_scenes(0.3),)),
        step=StepConfig(
            clip=ClipConfig(num_objects=objects, num_ref_frames=3),
            loss=LossConfig(num_points=2_048),
            optimizer=OptimizerConfig(
                learning_rate=rate, decay=decay, backbone_ratio=1.0, clip_norm=3.0
            ),
            ema_decay=0.998,
        ),
    )


def _data(crop: int, frames: int, objects: int, scenes: tuple[SyntheticConfig, ...]) -> DataConfig:
    photographs = RegionFolderConfig("bsds500", backgrounds=PICTURES, multiplier=2)
    return DataConfig(
        sources=(photographs, *scenes),
        crop=crop,
        num_frames=frames,
        max_objects=objects,
        skips=((0.0, 3), (0.2, 6), (0.5, 10)),
        merge=0.3,
        image=ImageAugmentationConfig(walk=0.35, clip_scale=(0.7, 1.5), scale=(0.7, 1.4), bend=0.5),
        video=VideoAugmentationConfig(rotation=15.0, shear=10.0),
        num_workers=1,
    )


def _scenes(
    lookalikes: float, objects: tuple[int, int] = (1, 3), multiplier: int = 1
) -> SyntheticConfig:
    return SyntheticConfig(
        height=240,
        width=320,
        objects=objects,
        scene=SceneConfig(distractors=2, lookalikes=lookalikes, speed=1.5),
        pictures=PICTURES,
        picture_share=0.8,
        multiplier=multiplier,
    )
