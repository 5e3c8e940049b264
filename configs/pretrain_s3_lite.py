"""Static pre-training of the small model on the photographs of BSDS500 only.

  s3 convert --model=s3_lite_single_object \
      --efficientnet=efficientnet-lite0.pth --output=checkpoints/s3_lite_single_object_start
  s3 train --config=configs/pretrain_s3_lite.py --workdir=runs/s3_lite_static \
      --config.data_root=data \
      --config.initial_checkpoint=checkpoints/s3_lite_single_object_start

This is a small version of the published recipe's first stage. Every object is a region of a
photograph that moves over two more frames. `data_root` holds `bsds500` (images and region maps)
and `davis2016_dev` for validation. Hardware: one CPU core for 40 minutes.
Expected score: J&F 70 on the DAVIS development sequences (short side 240, first 30 frames),
up from 12 before training.
"""

from ml_collections import ConfigDict

from s3_jax.config import MODELS
from s3_jax.data.config import (
    ColourConfig,
    DataConfig,
    ImageAugmentationConfig,
    RegionFolderConfig,
    VideoAugmentationConfig,
)
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig, StageConfig, ValidationConfig
from s3_jax.training.step_config import ClipConfig, LossConfig, OptimizerConfig, StepConfig


def get_config() -> ConfigDict:
    """Return the run: one stage with single objects."""
    run = RunConfig(
        model=MODELS["s3_lite"],
        stages=(static(),),
        validation=ValidationConfig(
            path="davis2016_dev",
            protocol="davis2016",
            short_side=240,
            max_frames=30,
            every=500,
            at_start=True,
        ),
        seed=0,
        log_every=25,
        images_every=1_000,
        save_every=250,
        keep=3,
        divergence=10.0,
        max_skipped=10,
        devices="pmap",
    )
    return ConfigDict(run_config.to_dict(run))


def static() -> StageConfig:
    """Return the stage with moving regions of photographs."""
    photographs = RegionFolderConfig("bsds500", area=(0.01, 0.35), multiplier=1.0)
    return StageConfig(
        name="static",
        steps=1_500,
        batch_size=4,
        dtype="float32",
        single_object=True,
        trainable_blocks=(),
        data=DataConfig(
            sources=(photographs,),
            seed=0,
            crop=160,
            num_frames=3,
            max_objects=1,
            skips=((0.0, 3), (0.2, 6), (0.5, 10)),
            reverse=0.5,
            merge=0.0,
            image=ImageAugmentationConfig(
                flip=0.5,
                clip_scale=(0.7, 1.5),
                clip_colour=ColourConfig(brightness=0.1, contrast=0.05, saturation=0.05, hue=0.05),
                grey=0.05,
                rotation=20.0,
                scale=(0.7, 1.4),
                shear=10.0,
                walk=0.35,
                frame_colour=ColourConfig(brightness=0.1, contrast=0.05, saturation=0.05, hue=0.0),
                bend=0.5,
                bend_strength=0.02,
            ),
            video=VideoAugmentationConfig(
                flip=0.5,
                rotation=15.0,
                shear=10.0,
                crop_area=(0.36, 1.0),
                crop_aspect=(3 / 4, 4 / 3),
                clip_colour=ColourConfig(brightness=0.1, contrast=0.03, saturation=0.03, hue=0.0),
                grey=0.05,
                frame_colour=ColourConfig(brightness=0.1, contrast=0.05, saturation=0.05, hue=0.0),
            ),
            fill_colour=(124, 116, 104),
            crops_tried=5,
            seeds_tried=5,
            sequences_tried=100,
            max_failing=0.05,
            num_workers=1,
            num_threads=1,
            clips_ahead=4,
        ),
        step=StepConfig(
            clip=ClipConfig(
                num_objects=1,
                num_ref_frames=3,
                deep_update_prob=0.2,
                remat_encoder="none",
                remat_frames="none",
            ),
            loss=LossConfig(
                num_points=2_048,
                oversampling=3.0,
                uncertain_part=0.75,
                sensory_weight=0.01,
                query_weight=0.01,
            ),
            optimizer=OptimizerConfig(
                learning_rate=4e-4,
                decay="polynomial",
                milestones=(100_000, 115_000),  # not used with this decay, nor is gamma
                gamma=0.1,
                power=0.9,
                backbone_ratio=1.0,
                weight_decay=1e-3,
                embedding_weight_decay=0.0,
                beta1=0.9,
                beta2=0.999,
                epsilon=None,
                clip_norm=3.0,
            ),
            accumulate=1,
            ema_decay=0.998,
        ),
    )
