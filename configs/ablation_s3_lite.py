r"""Ablation of s3_lite: networks with one part removed, all trained briefly in the same way.

  s3 convert --model=s3_lite_multi_head \
      --efficientnet=efficientnet-lite0.pth --output=checkpoints/multi_head_start
  s3 train --config=configs/ablation_s3_lite.py:s3_lite_multi_head \
      --workdir=runs/multi_head --config.data_root=data \
      --config.initial_checkpoint=checkpoints/multi_head_start

The name after the colon is the network's name, as in the first command:
  s3_lite                             nothing removed
  s3_lite_without_semantic_embedding  detail tokens do not read the class and mean tokens
  s3_lite_without_spatial_dependency  no deformable attention, and no feed-forward layer after it
  s3_lite_multi_head                  plain cross attention instead of the discriminative kind

All networks share data, seed, steps and settings. `data_root` holds `bsds500` (images and region
maps), `imagenet_samples` (pictures), and `davis2016_dev` for validation.
Hardware: one CPU core for 15 minutes each. Expected score: 65 to 69 (docs/benchmarks.md). Compare
these scores only with one another, because the training is a fraction of that of s3_lite.
"""

from ml_collections import ConfigDict

from s3_jax.config import MODELS
from s3_jax.data.config import (
    ColourConfig,
    DataConfig,
    ImageAugmentationConfig,
    RegionFolderConfig,
    SyntheticConfig,
    VideoAugmentationConfig,
)
from s3_jax.data.synthetic import SceneConfig
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig, StageConfig, ValidationConfig
from s3_jax.training.step_config import ClipConfig, LossConfig, OptimizerConfig, StepConfig

BASE = "s3_lite"
STEPS = 600


def get_config(name: str = BASE) -> ConfigDict:
    """Return the configuration of one run.

    Raises:
      ValueError: the network is unknown, or is not an ablation of s3_lite.
    """
    known = [model for model in MODELS if model.startswith(BASE)]
    if name not in known:
        raise ValueError(f"there is no ablation {name!r}; write one of {', '.join(known)}")
    run = RunConfig(
        model=MODELS[name],
        stages=(short(),),
        validation=ValidationConfig(
            path="davis2016_dev",
            protocol="davis2016",
            short_side=240,
            max_frames=0,
            every=STEPS,
            at_start=False,
        ),
        seed=0,
        log_every=50,
        images_every=1_000,
        save_every=250,
        keep=3,
        divergence=10.0,
        max_skipped=10,
        devices="pmap",
    )
    return ConfigDict(run_config.to_dict(run))


def short() -> StageConfig:
    """Return the only stage: photographs whose regions move, and synthetic scenes."""
    return StageConfig(
        name="short",
        steps=STEPS,
        batch_size=4,
        dtype="float32",
        single_object=False,
        trainable_blocks=(),
        data=DataConfig(
            sources=(photographs(), scenes()),
            seed=0,
            crop=128,
            num_frames=3,
            max_objects=2,
            skips=((0.0, 3), (0.2, 6), (0.5, 10)),
            reverse=0.5,
            merge=0.3,
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
                num_objects=2,
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


def photographs() -> RegionFolderConfig:
    """Return the source of photograph regions that move over other pictures."""
    return RegionFolderConfig(
        "bsds500",
        area=(0.01, 0.35),
        multiplier=2,
        backgrounds="imagenet_samples",
        background_share=0.5,
    )


def scenes() -> SyntheticConfig:
    """Return the source of synthetic scenes with a few look-alike distractors."""
    return SyntheticConfig(
        height=240,
        width=320,
        num_frames=100,
        scenes=1_000,
        objects=(1, 3),
        scene=SceneConfig(
            distractors=2,
            lookalikes=0.3,
            speed=1.5,
            deformation=1.0,
            motion_blur=0.0,
            noise=3.0,
        ),
        pictures="imagenet_samples",
        picture_share=0.8,
        frame_interval=1,
        multiplier=1,
    )
