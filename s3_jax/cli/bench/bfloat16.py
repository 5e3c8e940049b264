r"""Measure the errors of bfloat16 relative to float32, stage by stage.

  s3 bench bfloat16 --checkpoint=checkpoints/s3 --frame=frame.png --mask=mask.png
  s3 bench bfloat16 --model=s3_vitb                  random weights, a synthetic frame

Columns, as root mean squares relative to the float32 result:
  own     the error of the stage with float32 inputs
  chain   its error if all earlier stages are in bfloat16 too

In the object transformer every query picks one pixel. If two pixels are almost equally similar,
bfloat16 may pick the other one, which shows as a larger error of `pixel`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging

from s3_jax.cli import command
from s3_jax.config import MODELS, ModelConfig
from s3_jax.errors import InputError

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Model checkpoint.")
MODEL = flags.DEFINE_enum("model", None, sorted(MODELS), "Network with random weights instead.")
FRAME = flags.DEFINE_string("frame", None, "Picture. Default: a synthetic frame.")
MASK = flags.DEFINE_string("mask", None, "Index mask of --frame; required with it.")
SIZE = flags.DEFINE_string("size", "128x192", "Height x width of the synthetic frame.")
OBJECTS = flags.DEFINE_integer("objects", 2, "Objects in the synthetic frame.", lower_bound=1)


def main() -> None:
    logging.set_verbosity(logging.WARNING)
    from s3_jax.analysis.precision import stage_errors

    config, variables = _network()
    image, masks = _frame(config.size_multiple)
    print(f"{'stage':22s}{'result':16s}{'own':>10s}{'chain':>10s}{'largest':>10s}")
    for one in stage_errors(config, variables, image, masks):
        print(f"{one.stage:22s}{one.result:16s}{one.own:10.2e}{one.chain:10.2e}"
              f"{one.largest:10.2e}", flush=True)  # fmt: skip


def _network() -> tuple[ModelConfig, Any]:
    from s3_jax.analysis.workloads import random_variables
    from s3_jax.checkpoints.model import load_model

    if (CHECKPOINT.value is None) == (MODEL.value is None):
        raise InputError("give either --checkpoint or --model")
    if CHECKPOINT.value:
        return load_model(CHECKPOINT.value)
    model = MODELS[str(MODEL.value)]
    return model, random_variables(model)


def _frame(multiple: int) -> tuple[Any, Any]:
    """Return a frame (1 H W 3) in [0, 1] and masks (1 k H W), padded for the network."""
    import jax.numpy as jnp

    from s3_jax.media.image_files import read_image
    from s3_jax.media.mask_files import read_mask
    from s3_jax.propagation.geometry import frame_geometry, pad, prepare_image

    if (FRAME.value is None) != (MASK.value is None):
        raise InputError("--frame and --mask go together")
    if FRAME.value is None or MASK.value is None:
        frame, ids = _made_up(command.frame_size(SIZE.value), OBJECTS.value)
    else:
        frame, ids = read_image(Path(FRAME.value)), read_mask(Path(MASK.value)).ids
    if frame.shape[:2] != ids.shape:
        raise InputError(
            f"--mask={MASK.value} is {ids.shape[1]}x{ids.shape[0]}, but --frame={FRAME.value} "
            f"{frame.shape[1]}x{frame.shape[0]}: give a mask of the frame's size"
        )
    known = [number for number in np.unique(ids) if number]
    if not known:
        raise InputError(
            f"--mask={MASK.value} holds no object: every pixel is 0; give one with ids above 0"
        )
    masks = np.stack([ids == number for number in known])[None].astype(np.float32)
    geometry = frame_geometry((ids.shape[0], ids.shape[1]), multiple)
    return prepare_image(jnp.asarray(frame), geometry), pad(jnp.asarray(masks), geometry, axis=2)


def _made_up(size: tuple[int, int], objects: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a smooth picture with discs on it, and return it with its masks."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    wave = [np.sin(x / (7.0 + c) + y / (11.0 - c)) for c in range(3)]
    frame = (127 + 80 * np.stack(wave, -1)).astype(np.uint8)
    ids = np.zeros(size, np.uint8)
    for k in range(objects):
        centre = width * (k + 1) / (objects + 1)
        disc = (x - centre) ** 2 + (y - height / 2) ** 2 < (min(size) / 5) ** 2
        ids[disc] = k + 1
        frame[disc] = (60 * k + 40, 200 - 50 * k, 90)
    return frame, ids
