"""Smoke test of training: both stages on synthetic video, in under two minutes on two CPU cores.

  s3 train --config=configs/smoke.py --workdir=runs/smoke
  s3 segment --checkpoint=runs/smoke --video=... --masks=... --output=...

Hardware: any. Expected score: none. The loss falls, but a tiny network learns little in 40 steps.
"""

import importlib.metadata
import os

from ml_collections import ConfigDict

from s3_jax.config import ModelConfig, ViTConfig
from s3_jax.data.config import (
    ColourConfig,
    DataConfig,
    ImageAugmentationConfig,
    SyntheticConfig,
    VideoAugmentationConfig,
)
from s3_jax.data.synthetic import SceneConfig
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig, StageConfig
from s3_jax.training.step_config import ClipConfig, LossConfig, OptimizerConfig, StepConfig

# Compilation takes most of the time; without optimization it takes a quarter as long.
_FLAGS = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later versions abort on the flag
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"
_GIVEN = os.environ.get("XLA_FLAGS", "")
if "xla_backend_optimization_level" not in _GIVEN:
    os.environ["XLA_FLAGS"] = f"{_FLAGS} {_GIVEN}".strip()

TINY = ModelConfig(
    encoder="feature_pyramid",
    encoder_settings=ViTConfig(embed_dim=64, depth=2, num_heads=2, position_grid=6),
    num_blocks=1,
    num_queries=4,
    width=48,
    key_dim=16,
    num_heads=2,
    ff_dim=64,
    decoder_dims=(48, 32, 32),
)


def get_config() -> ConfigDict:
    """Return the run's configuration."""
    static = StageConfig(
        name="static",
        steps=24,
        batch_size=2,
        dtype="float32",
        single_object=True,
        trainable_blocks=(),
        data=_data(frames=3, objects=1, merge=0.0, scene_frames=1),
        step=_step(objects=1, references=2),
    )
    video = StageConfig(
        name="video",
        steps=16,
        batch_size=2,
        dtype="float32",
        single_object=False,
        trainable_blocks=(),
        data=_data(frames=4, objects=2, merge=0.5, scene_frames=20),
        step=_step(objects=2, references=3),
    )
    run = RunConfig(
        model=TINY,
        stages=(static, video),
        seed=0,
        log_every=4,
        images_every=40,
        save_every=8,
        keep=3,
        divergence=10.0,
        max_skipped=10,
        devices="pmap",
    )
    return ConfigDict(run_config.to_dict(run))


def _data(frames: int, objects: int, merge: float, scene_frames: int) -> DataConfig:
    return DataConfig(
        sources=(_scenes(scene_frames),),
        seed=0,
        crop=96,
        num_frames=frames,
        max_objects=objects,
        skips=((0.0, 5), (0.1, 10), (0.3, 15), (0.8, 5)),
        reverse=0.5,
        merge=merge,
        image=ImageAugmentationConfig(
            flip=0.5,
            clip_scale=(0.5, 2.0),
            clip_colour=ColourConfig(brightness=0.1, contrast=0.05, saturation=0.05, hue=0.05),
            grey=0.05,
            rotation=20.0,
            scale=(0.5, 2.0),
            shear=10.0,
            walk=1.0,
            frame_colour=ColourConfig(brightness=0.1, contrast=0.05, saturation=0.05, hue=0.0),
            bend=0.33,
            bend_strength=0.02,
        ),
        video=VideoAugmentationConfig(
            flip=0.5,
            rotation=25.0,
            shear=20.0,
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
        num_workers=0,
        num_threads=1,
        clips_ahead=4,
    )


def _scenes(frames: int) -> SyntheticConfig:
    return SyntheticConfig(
        height=96,
        width=128,
        num_frames=frames,
        scenes=1_000,
        objects=(1, 2),
        scene=SceneConfig(
            distractors=1,
            lookalikes=0.3,
            speed=1.0,
            deformation=1.0,
            motion_blur=0.0,
            noise=3.0,
        ),
        picture_share=0.7,
        frame_interval=1,
        multiplier=1.0,
    )


def _step(objects: int, references: int) -> StepConfig:
    return StepConfig(
        clip=ClipConfig(
            num_objects=objects,
            num_ref_frames=references,
            deep_update_prob=0.2,
            remat_encoder="none",
            remat_frames="none",
        ),
        loss=LossConfig(
            num_points=1_024,
            oversampling=3.0,
            uncertain_part=0.75,
            sensory_weight=0.01,
            query_weight=0.01,
        ),
        optimizer=OptimizerConfig(
            learning_rate=3e-4,
            decay="constant",
            milestones=(100_000, 115_000),  # not used with this decay, nor are gamma and power
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
        ema_decay=None,
    )
