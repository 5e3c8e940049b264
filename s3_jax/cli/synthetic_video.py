"""Make a small video with exact masks, to try out the other commands.

  s3 synthetic-video --output=demo --frames=60 --objects=3
  s3 segment --video=demo/frames --masks=demo/masks/00000.png \\
      --checkpoint=CHECKPOINT --output=demo/result

Files in --output:
  frames/00000.jpg ...   the frames
  masks/00000.png ...    palette images: 0 is background, objects count from 1
  video.mp4              with --video_file

The same flags give the same pixels.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from s3_jax.cli import command
from s3_jax.data.synthetic import Scene, SceneConfig, render, sample_scene
from s3_jax.errors import InputError, reason
from s3_jax.files import replacing
from s3_jax.limits import require_within
from s3_jax.media.mask_files import MaskEncoding
from s3_jax.media.overlay import write_video
from s3_jax.media.palette import voc_palette
from s3_jax.media.writers import write_mask

OUTPUT = flags.DEFINE_string("output", None, "Directory for the video. Required.")
FRAMES = flags.DEFINE_integer("frames", 60, "Number of frames.", lower_bound=1)
HEIGHT = flags.DEFINE_integer("height", 240, "Height in pixels.", lower_bound=16)
WIDTH = flags.DEFINE_integer("width", 432, "Width in pixels.", lower_bound=16)
OBJECTS = flags.DEFINE_integer("objects", 2, "Number of objects.", lower_bound=1, upper_bound=255)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the random scene.", lower_bound=0)
DISTRACTORS = flags.DEFINE_integer(
    "distractors", 1, "Moving things that count as background in the masks.", lower_bound=0
)
MOTION_BLUR = flags.DEFINE_float(
    "motion_blur", 0.0, "Fraction of the time that the shutter is open.", 0.0, 1.0
)
PNG = flags.DEFINE_bool("png", False, "Write frames as lossless PNG instead of JPEG.")
VIDEO_FILE = flags.DEFINE_bool("video_file", False, "Also write video.mp4.")
FPS = 24


def main() -> int:
    try:
        if not OUTPUT.value:
            raise InputError("give --output=DIRECTORY")
        _make(Path(OUTPUT.value))
    except OSError as error:
        return command.fail(f"cannot write {error.filename or OUTPUT.value}: {reason(error)}")
    except ValueError as error:
        return command.fail(str(error))
    return 0


def _make(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} exists and is not an empty directory: choose another --output")
    megapixels = HEIGHT.value * WIDTH.value / 1e6
    require_within("megapixels", megapixels, f"--height and --width ask for {megapixels:.0f} "
                   "megapixels")  # fmt: skip
    config = SceneConfig(distractors=DISTRACTORS.value, motion_blur=MOTION_BLUR.value)
    rng = np.random.default_rng(SEED.value)
    scene = sample_scene(rng, HEIGHT.value, WIDTH.value, OBJECTS.value, config)
    for folder in ("frames", "masks"):
        (output / folder).mkdir(parents=True)
    for index in range(FRAMES.value):
        _write_frame(scene, index, output)
    if VIDEO_FILE.value:
        pictures = (render(scene, t)[0] for t in range(FRAMES.value))
        write_video(output / "video.mp4", pictures, Fraction(FPS))
    print(f"{output}: {FRAMES.value} frames of {WIDTH.value}x{HEIGHT.value}")


def _write_frame(scene: Scene, index: int, output: Path) -> None:
    frame, mask = render(scene, index)
    suffix, format_name = ("png", "PNG") if PNG.value else ("jpg", "JPEG")
    with replacing(output / "frames" / f"{index:05d}.{suffix}") as temporary:
        Image.fromarray(frame).save(temporary, format=format_name, quality=95)
    encoding = MaskEncoding("palette", voc_palette().tobytes())
    write_mask(output / "masks" / f"{index:05d}.png", mask, encoding)
