"""Identity measure: the share of frames in which objects keep their identities.

An object keeps its identity in a frame if its own predicted mask covers it more than any other
object's mask does.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Integer

from s3_jax.benchmarks.score_folders import MASK_SUFFIX, find_sequences, frame_names
from s3_jax.errors import InputError
from s3_jax.media.mask_files import read_mask

Ids = Integer[np.ndarray, "h w"]


def kept_identities(annotation: Ids, prediction: Ids) -> dict[int, bool]:
    """Map each annotated object of a frame to True if it keeps its identity, else to False.

    Raises:
      ValueError: the masks differ in size.
    """
    if annotation.shape != prediction.shape:
        raise ValueError(f"masks of {annotation.shape} and {prediction.shape} differ in size")
    return {int(i): _kept(prediction[annotation == i], int(i)) for i in np.unique(annotation) if i}


def _kept(predicted: Integer[np.ndarray, " n"], object_id: int) -> bool:
    ids, areas = np.unique(predicted[predicted > 0], return_counts=True)
    own = int(areas[ids == object_id].sum())
    return own > int(areas[ids != object_id].max(initial=0))


def identity_shares(annotations: Path, results: Path) -> dict[str, float]:
    """Return, for every sequence, the share of (object, frame) pairs with a kept identity.

    The first frame does not count, because its mask is given.

    Raises:
      InputError: a sequence or mask is missing, damaged or of another size, or a sequence has no
        objects after its first frame.
    """
    sequences = find_sequences(annotations, "--annotations")
    return {name: _share(folder, results / name) for name, folder in sequences.items()}


def _share(annotations: Path, results: Path) -> float:
    kept: list[bool] = []
    for name in frame_names(annotations)[1:]:
        file = results / f"{name}{MASK_SUFFIX}"
        try:
            frame = kept_identities(read_mask(annotations / file.name).ids, read_mask(file).ids)
        except ValueError as error:
            raise InputError(f"{file}: {error}") from error
        kept += frame.values()
    if not kept:
        raise InputError(f"{annotations} has no objects after the first frame: nothing to score")
    return float(np.mean(kept))
