"""Make the multi-object validation set, or measure how many identities the results on it keep.

  s3 crossing-videos --data_root=data --output=crossings
  s3 predict --dataset=generic --noall_masks --data_dir=crossings \\
      --checkpoint=s3_lite --output=results
  s3 score --annotations=crossings/Annotations --results=results/Annotations
  s3 crossing-videos --annotations=crossings/Annotations \\
      --results=results/Annotations

In each video, two or three objects from different clips cross, and for a while more than a third of
one object is hidden. The objects come from the DAVIS-2016 training sequences that
configs/train_s3_lite.py holds out, and from the instances of `stills/voc2007_instances`. The same
flags give the same videos.
"""

from pathlib import Path

from absl import flags
from PIL import Image

from s3_jax.benchmarks.identity import identity_shares
from s3_jax.cli import command
from s3_jax.data.config import (
    DataConfig,
    ImageAugmentationConfig,
    ImageFolderConfig,
    VideoAugmentationConfig,
    VideoFolderConfig,
)
from s3_jax.data.crossings import crossing_clips
from s3_jax.data.merging import Clip
from s3_jax.errors import InputError, reason
from s3_jax.files import replacing
from s3_jax.media.mask_files import MaskEncoding
from s3_jax.media.palette import voc_palette
from s3_jax.media.writers import write_mask

DATA_ROOT = flags.DEFINE_string("data_root", None, "Directory that contains the data sets.")
OUTPUT = flags.DEFINE_string("output", None, "Directory for JPEGImages/ and Annotations/.")
ANNOTATIONS = flags.DEFINE_string(
    "annotations", None, "Ground-truth masks, to compare --results with."
)
RESULTS = flags.DEFINE_string("results", None, "One folder of masks per video.")
VIDEOS = flags.DEFINE_integer("videos", 16, "Number of videos.", lower_bound=1)
FRAMES = flags.DEFINE_integer("frames", 32, "Frames of a video.", lower_bound=3)
HELD_OUT = ("hockey", "mallard-fly", "soccerball", "swing")


def main() -> int:
    try:
        if RESULTS.value and ANNOTATIONS.value:
            _print_shares(identity_shares(Path(ANNOTATIONS.value), Path(RESULTS.value)))
        elif DATA_ROOT.value and OUTPUT.value:
            _make(Path(DATA_ROOT.value), Path(OUTPUT.value))
        else:
            raise InputError("give --data_root and --output, or --annotations and --results")
    except OSError as error:
        return command.fail(f"cannot write {error.filename or OUTPUT.value}: {reason(error)}")
    except ValueError as error:
        return command.fail(str(error))
    return 0


def crossing_data(root: Path, frames: int) -> DataConfig:
    """Return the settings for the objects' sources and motion, without colour changes."""
    return DataConfig(
        sources=(
            VideoFolderConfig(str(root / "davis2016_train"), binary=True, videos=HELD_OUT),
            ImageFolderConfig(str(root / "stills/voc2007_instances"), instances=True),
        ),
        crop=320,
        num_frames=frames,
        max_objects=1,
        reverse=0.0,
        image=ImageAugmentationConfig(walk=0.05, scale=(0.6, 1.1), clip_scale=(0.8, 1.1), grey=0.0),
        video=VideoAugmentationConfig(rotation=0.0, shear=0.0, crop_area=(0.5, 0.9), grey=0.0),
    )


def _make(root: Path, output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists and is not an empty directory: choose another --output")
    clips = crossing_clips(crossing_data(root, FRAMES.value), VIDEOS.value)
    for number, clip in enumerate(clips):
        _write(clip, output, f"crossing{number:02d}")
    print(f"{output}: {VIDEOS.value} videos of {FRAMES.value} frames")


def _write(clip: Clip, output: Path, name: str) -> None:
    encoding = MaskEncoding("palette", voc_palette().tobytes())
    images, masks = output / "JPEGImages" / name, output / "Annotations" / name
    for folder in (images, masks):
        folder.mkdir(parents=True)
    for index, (frame, mask) in enumerate(zip(clip.frames, clip.masks, strict=True)):
        with replacing(images / f"{index:05d}.jpg") as temporary:
            Image.fromarray(frame).save(temporary, format="JPEG", quality=95)
        write_mask(masks / f"{index:05d}.png", mask, encoding)


def _print_shares(shares: dict[str, float]) -> None:
    for name, share in shares.items():
        print(f"{name}  {share:.3f}")
    print(f"mean  {sum(shares.values()) / len(shares):.3f}")
