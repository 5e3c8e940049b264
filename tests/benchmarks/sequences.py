"""Small sequences of masks, in memory and as folders of PNGs."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s3_jax.media.mask_files import MaskEncoding
from s3_jax.media.palette import voc_palette
from s3_jax.media.writers import write_mask

PALETTE = MaskEncoding("palette", voc_palette().tobytes())
GREY = MaskEncoding("grey")
RGB = MaskEncoding("rgb")


def write_sequence(
    folder: Path, masks: Iterable[np.ndarray], encoding: MaskEncoding = PALETTE
) -> Path:
    """Masks as 00000.png, 00001.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, mask in enumerate(masks):
        write_mask(folder / f"{index:05d}.png", np.asarray(mask), encoding)
    return folder


def squares(
    frames: int, ids: Sequence[int] = (1,), shift: int = 0, size: tuple[int, int] = (40, 64)
) -> list[np.ndarray]:
    """A square for each id, side by side, moving down with time; `shift` pixels to the right."""
    masks = []
    for t in range(frames):
        mask = np.zeros(size, np.int32)
        for place, object_id in enumerate(ids):
            left = 4 + 18 * place + shift
            mask[5 + t : 17 + t, left : left + 12] = object_id
        masks.append(mask)
    return masks


def read_golden(folder: Path, case: str) -> tuple[np.ndarray, np.ndarray, dict[int, Any]]:
    """Annotation, prediction (t h w), and what the public evaluation says of each object."""
    arrays = np.load(folder / f"metrics_{case}.npz")
    values = json.loads((folder / f"metrics_{case}.json").read_text())
    objects = {int(key): value for key, value in values.items()}
    return arrays["annotation"], arrays["prediction"], objects


GOLDEN_CASES = ("absent", "never_predicted", "single_480p", "three_objects", "tiny", "void")
