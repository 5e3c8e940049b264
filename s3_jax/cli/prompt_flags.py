"""Flags that define a first mask by clicks and boxes, and the function that makes it."""

from pathlib import Path

import numpy as np
from absl import flags
from jaxtyping import UInt8

from s3_jax.errors import InputError
from s3_jax.media.mask_encoding import MaskEncoding
from s3_jax.media.mask_files import read_mask
from s3_jax.media.overlay import draw_overlay
from s3_jax.media.palette import voc_palette
from s3_jax.media.writers import write_mask, write_picture

FIRST_MASK, FIRST_PICTURE = "first_mask.png", "first_mask_overlay.png"

POINTS = flags.DEFINE_multi_string(
    "points",
    [],
    "Instead of --masks: points on an object in the first frame, as x,y:id or x,y,x,y:id, in "
    "pixels from the left and the top. Repeat the flag for more objects or more points. Without "
    ":id the points are on object 1.",
)
NEGATIVE_POINTS = flags.DEFINE_multi_string(
    "negative_points",
    [],
    "Points that are not on the object with this id, written like --points. They remove what "
    "--points or --box selected by mistake.",
)
BOX = flags.DEFINE_multi_string(
    "box",
    [],
    "Instead of --masks, alone or with --points: a box around an object in the first frame, as "
    "left,top,right,bottom:id",
)


def given() -> bool:
    """Return True if the first mask is to be made from clicks and boxes."""
    return bool(POINTS.value or NEGATIVE_POINTS.value or BOX.value)


def make_first_mask(
    image: UInt8[np.ndarray, "h w 3"], checkpoint: Path, output: Path, overwrite: bool
) -> Path:
    """Write the mask that the flags define, and a picture of it, to a directory.

    Raises:
      InputError: the flags are invalid, nothing is found, or a different mask exists already.
    """
    from s3_jax.prompting.text import parse_prompts, prompted_ids

    prompts = parse_prompts(POINTS.value, NEGATIVE_POINTS.value, BOX.value)

    from s3_jax.cli.compilation import prepare_compilation
    from s3_jax.prompting import Prompter

    prepare_compilation()
    ids = prompted_ids(Prompter(checkpoint), image, prompts)
    output.mkdir(parents=True, exist_ok=True)
    path = output / FIRST_MASK
    if path.exists() and not overwrite and not np.array_equal(read_mask(path).ids, ids):
        raise InputError(f"{path} was made from other points or boxes: choose another --output or "
                         "pass --overwrite")  # fmt: skip
    encoding = MaskEncoding("palette", voc_palette().tobytes())
    write_mask(path, ids, encoding)
    write_picture(output / FIRST_PICTURE, draw_overlay(image, ids, encoding))
    print(f"{path}, shown in {FIRST_PICTURE}: made from the prompts for {len(prompts)} object"
          f"{'s' * (len(prompts) > 1)}")  # fmt: skip
    return path
