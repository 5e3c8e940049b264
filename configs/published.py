"""The published recipe (paper section 4.1), for any published network and selection of data sets.

  s3 train --config=published:s3_vitb,base --workdir=runs/s3_vitb --config.data_root=DATASETS

`--config=configs/published.py:s3_vitb,base` and `--config=train_s3_vitb:base` are equivalent.
The first stage trains on static images with single objects, the second on videos. The second
argument selects the video data sets:

  base    DAVIS and YouTube-VOS
  mose    also MOSE
  mega    also MOSE, BURST and OVIS, with longer training

`data_root` holds the data sets in folders named as in the stages below. Training starts from public
weights, which `s3 convert --output=checkpoints/NETWORK_start` downloads by name and combines:

  --model=s3_vitb_depthanything_single_object --vit=depth_anything_vitb14 RESNET18
                 ViT-B of Depth-Anything, five blocks and eight queries: the released network
  --model=s3_vitb_single_object --vit=dinov2_vitb14 RESNET18
                 ViT-B of DINOv2
  --model=s3_vitb_mae_single_object --vit=mae_vitb16 RESNET18
                 ViT-B of MAE
  --model=s3_vitl_single_object --vit=dinov2_vitl14 RESNET18
                 ViT-L of DINOv2
  --model=s3_fpn_vitb_single_object --vit=dinov2_vitb14 RESNET18
                 the ablation with a simple feature pyramid on a ViT-B of DINOv2
  --model=s3_resnet50_single_object --image_encoder_resnet=resnet50_imagenet RESNET18
  --model=s3_resnet18_single_object --image_encoder_resnet=resnet18_imagenet RESNET18
  --model=cutie_base_single_object --image_encoder_resnet=resnet50_imagenet RESNET18
  --model=cutie_small_single_object --image_encoder_resnet=resnet18_imagenet RESNET18
                 Cutie, S3's ancestor, with a ResNet-50 or a ResNet-18

RESNET18 is --mask_encoder_resnet=resnet18_imagenet.
Hardware: for the published batch of 16, 4 accelerators with 24 GB each for a ResNet, 8 with 40 GB
for a ViT-B, 8 with 80 GB for a ViT-L (estimates). Any number of accelerators that divides 16 works;
`step.accumulate` and `step.clip.remat_frames` reduce the memory.
Expected score: for s3_vitb_depthanything the release claims J&F 87.8 on DAVIS-2017 test-dev, 88.1
on YouTube-VOS 2019, 74.0 on MOSE and 73.0 on LVOS. None of these was measured with this code.
"""

from ml_collections import ConfigDict

from s3_jax.config import MODELS
from s3_jax.data.config import (
    ColourConfig,
    DataConfig,
    ImageAugmentationConfig,
    ImageFolderConfig,
    VideoAugmentationConfig,
    VideoFolderConfig,
)
from s3_jax.errors import InputError
from s3_jax.training import run_config
from s3_jax.training.run_config import RunConfig, StageConfig, ValidationConfig
from s3_jax.training.step_config import (
    ClipConfig,
    Decay,
    LossConfig,
    OptimizerConfig,
    StepConfig,
)

NETWORKS = tuple(name for name in MODELS if not name.startswith("s3_lite"))
IMAGES = (
    ImageFolderConfig("./FSS-1000", multiplier=1.0),
    ImageFolderConfig("./DUTS-TR", multiplier=1.0),
    ImageFolderConfig("./DUTS-TE", multiplier=1.0),
    ImageFolderConfig("./ECSSD", multiplier=1.0),
    ImageFolderConfig("./BIG", multiplier=5),
    ImageFolderConfig("./HRSOD", multiplier=5),
)
# The list is needed because the DAVIS folder also holds its validation videos.
DAVIS = VideoFolderConfig(
    "./DAVIS", subset="ImageSets/2017/train.txt", frame_interval=2, multiplier=2
)
YOUTUBE_VOS = VideoFolderConfig("./YouTubeVOS", frame_interval=5, multiplier=1.0)
MOSE = VideoFolderConfig("./MOSE", frame_interval=5, multiplier=1.0)
BURST = VideoFolderConfig("./BURST", frame_interval=5, multiplier=1.0)
OVIS = VideoFolderConfig("./OVIS", frame_interval=3, multiplier=1.0)
VIDEOS = {
    "base": (DAVIS, YOUTUBE_VOS),
    "mose": (DAVIS, YOUTUBE_VOS, MOSE),
    "mega": (DAVIS, YOUTUBE_VOS, MOSE, BURST, OVIS),
}
IMAGE_AUGMENTATION = ImageAugmentationConfig(
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
)
VIDEO_AUGMENTATION = VideoAugmentationConfig(
    flip=0.5,
    rotation=25.0,
    shear=20.0,
    crop_area=(0.36, 1.0),
    crop_aspect=(3 / 4, 4 / 3),
    clip_colour=ColourConfig(brightness=0.1, contrast=0.03, saturation=0.03, hue=0.0),
    grey=0.05,
    frame_colour=ColourConfig(brightness=0.1, contrast=0.05, saturation=0.05, hue=0.0),
)


def get_config(choice: str = "s3_vitb_depthanything,base") -> ConfigDict:
    """Return both stages for a network and data sets, such as "s3_vitb,mega".

    Raises:
      InputError: the network or the choice of data sets is unknown.
    """
    network, _, data = choice.partition(",")
    data = data or "base"
    if network not in NETWORKS:
        raise InputError(f"the network {network!r} is none of {', '.join(NETWORKS)}")
    if data not in VIDEOS:
        raise InputError(f"the choice of data sets {data!r} is none of {', '.join(VIDEOS)}")
    run = RunConfig(
        model=MODELS[network],
        stages=(static(), video(network, data)),
        validation=ValidationConfig(
            "DAVIS",
            subset="ImageSets/2017/val.txt",
            protocol="davis2017",
            short_side=480,
            max_frames=0,
            every=5_000,
            at_start=True,
        ),
        data_root="data",
        initial_checkpoint=f"checkpoints/{network}_start",
        seed=0,
        log_every=50,
        images_every=1_000,
        save_every=1_000,
        keep=3,
        divergence=10.0,
        max_skipped=10,
        devices="pmap",
    )
    return ConfigDict(run_config.to_dict(run))


def static() -> StageConfig:
    """Return the stage with single objects that move over static images."""
    data = DataConfig(
        sources=IMAGES,
        seed=0,
        crop=384,
        num_frames=3,
        max_objects=1,
        skips=((0.0, 5), (0.1, 10), (0.3, 15), (0.8, 5)),
        reverse=0.5,
        merge=0.0,
        image=IMAGE_AUGMENTATION,
        video=VIDEO_AUGMENTATION,
        fill_colour=(124, 116, 104),
        crops_tried=5,
        seeds_tried=5,
        sequences_tried=100,
        max_failing=0.05,
        num_workers=8,
        num_threads=1,
        clips_ahead=4,
    )
    return StageConfig(
        name="static",
        steps=80_000,
        batch_size=16,
        dtype="float32",
        single_object=True,
        trainable_blocks=(),
        data=data,
        step=_step(objects=1, references=2, points=8_192, rate=1e-4, decay="constant"),
    )


def video(network: str, data: str) -> StageConfig:
    """Return the stage with clips of videos with several objects, in mixed precision."""
    long = data == "mega"
    clips = DataConfig(
        sources=VIDEOS[data],
        seed=0,
        crop=480,
        num_frames=8,
        max_objects=3,
        skips=((0.0, 5), (0.1, 10), (0.3, 15), (0.8, 5)),
        reverse=0.5,
        merge=0.5,
        image=IMAGE_AUGMENTATION,
        video=VIDEO_AUGMENTATION,
        fill_colour=(124, 116, 104),
        crops_tried=5,
        seeds_tried=5,
        sequences_tried=100,
        max_failing=0.05,
        num_workers=8,
        num_threads=1,
        clips_ahead=4,
    )
    return StageConfig(
        name="video",
        steps=175_000 if long else 125_000,
        batch_size=16,
        dtype="bfloat16",
        single_object=False,
        trainable_blocks=(),
        data=clips,
        step=_step(
            objects=3,
            references=3,
            points=12_544,
            rate=1e-4 if network.startswith("cutie") else 5e-5,
            decay="steps",
            milestones=(140_000, 165_000) if long else (100_000, 115_000),
        ),
    )


def _step(
    objects: int,
    references: int,
    points: int,
    rate: float,
    decay: Decay,
    milestones: tuple[int, ...] = (100_000, 115_000),
) -> StepConfig:
    """Return the settings of a step; with decay "constant" the milestones are not used."""
    return StepConfig(
        clip=ClipConfig(
            num_objects=objects,
            num_ref_frames=references,
            deep_update_prob=0.2,
            remat_encoder="none",
            remat_frames="none",
        ),
        loss=LossConfig(
            num_points=points,
            oversampling=3.0,
            uncertain_part=0.75,
            sensory_weight=0.01,
            query_weight=0.01,
        ),
        optimizer=OptimizerConfig(
            learning_rate=rate,
            decay=decay,
            milestones=milestones,
            gamma=0.1,
            power=0.9,
            backbone_ratio=0.1,
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
