"""Fine-tuning of `s3_lite` on your own videos, with a few labelled frames of each.

  s3 train --config=configs/finetune.py --workdir=runs/mine --config.data_root=MY_VIDEOS
  s3 segment --checkpoint=runs/mine/best --video=... --masks=... --output=...

`data_root` holds JPEGImages/<video>/ with all frames, and Annotations/<video>/ with masks for some
of them, named like the frames: 0 is background, each object has its own number, and pixels with
255 are ignored. If everything but background is one object, whatever its value, write
--config=finetune:binary. See docs/finetune.md.

Hardware: any; ten minutes on two CPU cores. Expected score: depends on the videos; with three
labelled frames, J&F of the other frames rose by 1 to 4 points in four trials (docs/finetune.md).
"""

from ml_collections import ConfigDict

from s3_jax.config import MODELS
from s3_jax.data.config import (
    BlurConfig,
    ColourConfig,
    DataConfig,
    ImageAugmentationConfig,
    VideoAugmentationConfig,
    VideoFolderConfig,
)
from s3_jax.errors import InputError
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig, StageConfig, ValidationConfig
from s3_jax.training.step_config import ClipConfig, LossConfig, OptimizerConfig, StepConfig

_BINARY = {"ids": False, "binary": True}
_STEPS = 100


def get_config(labels: str = "ids") -> ConfigDict:
    """Return the run's configuration.

    labels: "ids" if each object has its own number, "binary" for masks of one object of any value.
    """
    if labels not in _BINARY:
        raise InputError(
            f"{labels!r} is none of {', '.join(_BINARY)}: write --config=finetune or "
            "--config=finetune:binary"
        )
    stage = StageConfig(
        name="finetune",
        steps=_STEPS,
        batch_size=2,
        data=_data(_BINARY[labels]),
        step=_step(),
    )
    validation = ValidationConfig(
        path=".",
        protocol="binary" if labels == "binary" else "generic",
        short_side=480,
        every=50,
        keep_start=True,
        patience=4,
        export_best=True,
    )
    run = RunConfig(
        MODELS["s3_lite"],
        (stage,),
        validation=validation,
        initial_checkpoint="s3_lite",
        log_every=25,
        images_every=0,
        save_every=50,
        keep=1,
    )
    return ConfigDict(run_config.to_dict(run))


def _data(binary: bool) -> DataConfig:
    """Return the data: clips that run back and forth over labelled frames, and clips of stills."""
    return DataConfig(
        sources=(
            VideoFolderConfig(".", binary=binary, multiplier=8),
            VideoFolderConfig(".", binary=binary, stills=True),
        ),
        crop=192,
        num_frames=4,
        max_objects=3,
        skips=((0.0, 25),),
        bounce=True,
        merge=0.2,
        occlude=0.1,
        image=ImageAugmentationConfig(
            walk=0.3, clip_scale=(0.7, 1.5), scale=(0.7, 1.4), bend=0.3, clip_colour=_COLOUR
        ),
        video=VideoAugmentationConfig(
            rotation=15.0, shear=10.0, crop_area=(0.12, 0.6), clip_colour=_COLOUR
        ),
        blur=BlurConfig(share=0.1),
        num_workers=0,
    )


_COLOUR = ColourConfig(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.03)


def _step() -> StepConfig:
    return StepConfig(
        # Statistics of two clips are worse than those in the checkpoint.
        clip=ClipConfig(num_objects=3, num_ref_frames=3, freeze_batch_norm=True),
        loss=LossConfig(num_points=4_096),
        optimizer=OptimizerConfig(
            learning_rate=1e-4, decay="polynomial", warm_up=20, backbone_ratio=1.0, clip_norm=3.0
        ),
        ema_decay=0.98,
    )
