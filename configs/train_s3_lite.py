"""Training of the bundled small model: photographs and synthetic scenes, then real video.

  s3 convert --model=s3_lite --efficientnet=efficientnet-lite0.pth \
      --output=checkpoints/s3_lite_start
  s3 train --config=configs/train_s3_lite.py --workdir=runs/s3_lite \
      --config.data_root=data --config.initial_checkpoint=checkpoints/s3_lite_start

`data_root` holds these folders:
  bsds500           images and region maps; every region, or a union of regions, is an object
  imagenet_samples  pictures, for backgrounds and surfaces
  davis2016_train   the training sequences of DAVIS-2016; four of them are held out for validation
  stills            ecssd (one object each), coco_instances (several)

Hardware: the first three stages take two hours on two CPU cores. For the bundled weights, the
"video" stage ran for 7 minutes on one H100 with 16 CPU cores (30.6 GiB of GPU memory, 3.8 steps
per second).
Expected score: see the README of s3_jax/checkpoints/s3_lite, the checkpoint that this run produced.
"""

from ml_collections import ConfigDict

from s3_jax.config import MODELS
from s3_jax.data.config import (
    BlurConfig,
    ColourConfig,
    DataConfig,
    ImageAugmentationConfig,
    ImageFolderConfig,
    RegionFolderConfig,
    SyntheticConfig,
    VideoAugmentationConfig,
    VideoFolderConfig,
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
HELD_OUT = ("hockey", "mallard-fly", "soccerball", "swing")
VIDEO_STEPS = 1_606


def get_config() -> ConfigDict:
    """Return the run: short clips, longer and larger clips, crossing distractors, real video."""
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
        video(),
    )
    run = RunConfig(
        MODELS["s3_lite"],
        stages,
        validation=ValidationConfig(
            path="davis2016_train",
            videos=HELD_OUT,
            protocol="davis2016",
            short_side=480,
            every=1_000,
        ),
        log_every=50,
        save_every=250,
    )
    return ConfigDict(run_config.to_dict(run))


def video() -> StageConfig:
    """Return the stage with labelled video: long clips, large crops, zooms, occlusion."""
    colour = ColourConfig(0.3, 0.25, 0.25, 0.05)
    data = DataConfig(
        sources=(
            VideoFolderConfig(
                "davis2016_train", binary=True, held_out=HELD_OUT, multiplier=32.0
            ),  # 736 of about 1,340 clips
            ImageFolderConfig(
                "stills/ecssd", backgrounds=PICTURES, background_share=0.3, multiplier=0.2
            ),
            ImageFolderConfig("stills/coco_instances", instances=True, multiplier=0.6),
            RegionFolderConfig("bsds500", backgrounds=PICTURES, multiplier=0.1),
            _scenes(0.8, objects=(2, 3), multiplier=0.2),
        ),
        crop=320,
        num_frames=8,
        max_objects=3,
        skips=((0.0, 25), (0.75, 8)),
        merge=0.5,
        occlude=0.2,
        cross=0.5,
        image=ImageAugmentationConfig(
            walk=0.3, clip_scale=(0.7, 1.5), scale=(0.6, 2.2), bend=0.5, clip_colour=colour
        ),
        video=VideoAugmentationConfig(
            rotation=15.0,
            shear=10.0,
            crop_area=(0.15, 1.0),
            crop_aspect=(0.6, 5 / 3),
            zoom=4.0,
            zoom_aspect=1.5,
            zoom_share=0.5,
            clip_colour=colour,
        ),
        blur=BlurConfig(share=0.2),
        num_workers=14,
    )
    step = StepConfig(
        clip=ClipConfig(num_objects=3, num_ref_frames=3),
        loss=LossConfig(num_points=6_144),
        optimizer=OptimizerConfig(
            learning_rate=4e-4,
            decay="polynomial",
            backbone_ratio=1.0,
            pretrained_ratio=0.1,
            clip_norm=3.0,
        ),
        ema_decay=0.995,
    )
    return StageConfig(
        "video", VIDEO_STEPS, batch_size=16, trainable_blocks=(1, 2), data=data, step=step
    )


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
    """Return a stage; without `scenes`, its scenes have a few look-alike distractors."""
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
    lookalikes: float, objects: tuple[int, int] = (1, 3), multiplier: float = 1
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
