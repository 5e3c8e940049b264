"""The small model that comes with the package, trained on photographs and made-up scenes only.

  python -m tools.convert_checkpoint --model=s3_lite --efficientnet=efficientnet-lite0.pth \
      --output=checkpoints/s3_lite_start
  python -m tools.train --config=configs/train_s3_lite.py --workdir=runs/s3_lite \
      --config.data_root=data --config.initial_checkpoint=checkpoints/s3_lite_start

`data_root` holds `bsds500` (images and region maps) and `imagenet_samples` (pictures), and
`davis2016_dev` for validation. Hardware: two CPU cores for some days, or any accelerator.
Expected score: not measured yet; only the first 579 steps have been run.
"""

from ml_collections import ConfigDict

from s3_jax.config import MODELS
from s3_jax.data.options import (
    DataConfig,
    ImageAugmentation,
    RegionFolder,
    SyntheticScenes,
    VideoAugmentation,
)
from s3_jax.data.synthetic import SceneOptions
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig, Stage, Validation
from s3_jax.training.settings import (
    ClipSettings,
    Decay,
    LossSettings,
    OptimizerSettings,
    StepSettings,
)

PICTURES = "imagenet_samples"


def get_config() -> ConfigDict:
    """The run's configuration: small crops and short clips first, longer and larger ones later."""
    stages = (
        stage("short", steps=6_000, crop=160, frames=3, decay="constant"),
        stage("long", steps=4_000, crop=192, frames=5, decay="polynomial"),
    )
    run = RunConfig(
        MODELS["s3_lite"],
        stages,
        validation=Validation(
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


def stage(name: str, steps: int, crop: int, frames: int, decay: Decay) -> Stage:
    return Stage(
        name=name,
        steps=steps,
        batch_size=4,
        data=_data(crop, frames),
        step=StepSettings(
            clip=ClipSettings(num_objects=2, num_ref_frames=3),
            loss=LossSettings(num_points=2_048),
            optimizer=OptimizerSettings(
                learning_rate=4e-4, decay=decay, backbone_ratio=1.0, clip_norm=3.0
            ),
            ema_decay=0.998,
        ),
    )


def _data(crop: int, frames: int) -> DataConfig:
    photographs = RegionFolder("bsds500", backgrounds=PICTURES, multiplier=2)
    scenes = SyntheticScenes(
        height=240,
        width=320,
        objects=(1, 3),
        scene=SceneOptions(distractors=2, lookalikes=0.3, speed=1.5),
        pictures=PICTURES,
        picture_share=0.8,
    )
    return DataConfig(
        sources=(photographs, scenes),
        crop=crop,
        num_frames=frames,
        max_objects=2,
        skips=((0.0, 3), (0.2, 6), (0.5, 10)),
        merge=0.3,
        image=ImageAugmentation(walk=0.35, clip_scale=(0.7, 1.5), scale=(0.7, 1.4), bend=0.5),
        video=VideoAugmentation(rotation=15.0, shear=10.0),
        num_workers=1,
    )
