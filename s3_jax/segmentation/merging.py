"""Merge several runs, for example at different scales: argmax of summed probabilities."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from s3_jax.errors import InputError, listed, reason
from s3_jax.media.image_files import DECODE_ERRORS, natural_key, shortened
from s3_jax.media.mask_files import MaskEncoding, read_mask
from s3_jax.media.writers import write_mask

# Object ids (k), and probabilities (k + 1, h, w); k differs between runs.
Scores = tuple[Int32[np.ndarray, "_"], Float32[np.ndarray, "_ _ _"]]


def merge_scores(runs: Sequence[Scores]) -> Int32[np.ndarray, "h w"]:
    """Return the object id with the highest summed probability for each pixel.

    Args:
      runs: object ids and probabilities (background first) of each run. The order of objects may
        differ; an object that a run lacks has probability 0 in it.

    Raises:
      InputError: the sizes differ.
    """
    sizes = {prob.shape[1:] for _, prob in runs}
    if len(sizes) > 1:
        raise InputError(f"the runs have probabilities of different sizes, {sorted(sizes)}")
    ids = np.unique(np.concatenate([np.zeros(1, np.int32), *(found for found, _ in runs)]))
    total = np.zeros((len(ids), *runs[0][1].shape[1:]), np.float32)
    for found, prob in runs:
        total[np.searchsorted(ids, np.concatenate([[0], found]))] += prob
    return ids[total.argmax(axis=0)].astype(np.int32)


def merge_frame(scores: Sequence[Path], encoding: MaskEncoding, output: Path) -> None:
    """Merge the files of one frame into a mask file.

    Args:
      scores: files with the probabilities of one frame, one per run.
      encoding: encoding of the mask file.
      output: the mask file to write.

    Raises:
      InputError: a file is damaged, or sizes differ.
    """
    try:
        write_mask(output, merge_scores([read_scores(path) for path in scores]), encoding)
    except InputError as error:
        raise InputError(f"{output.parent.name}/{output.stem}: {error}") from error


def read_scores(path: Path) -> Scores:
    """Read object ids and probabilities (background first) written by `writers.write_scores`.

    Raises:
      InputError: the file is missing, damaged or not a score file.
    """
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            ids, prob = arrays["ids"], arrays["prob"]
    except (*DECODE_ERRORS, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} does not hold probabilities ({reason(error)})") from error
    if prob.ndim != 3 or ids.shape != (len(prob) - 1,):
        raise InputError(f"{path} does not hold probabilities: shapes {prob.shape}, {ids.shape}")
    return ids.astype(np.int32), prob


def scored_frames(run: Path) -> dict[str, list[str]]:
    """Return the names of frames with probabilities in an output directory, by video.

    Raises:
      InputError: there are none.
    """
    root = run / "scores"
    frames: dict[str, list[str]] = {}
    for path in root.rglob("*.npz"):
        if not path.name.startswith("."):
            frames.setdefault(path.parent.relative_to(root).as_posix(), []).append(path.stem)
    if not frames:
        raise InputError(f"{root} holds no probabilities: run s3 predict with --save_scores")
    return {name: sorted(frames[name], key=natural_key) for name in sorted(frames)}


def refuse_different_frames(runs: Sequence[Path], frames: Sequence[dict[str, list[str]]]) -> None:
    """Raise an InputError that lists the missing frames for every run and video."""
    everything: dict[str, set[str]] = {}
    for found in frames:
        for name, names in found.items():
            everything.setdefault(name, set()).update(names)
    problems = [
        f"{run}/scores/{name} lacks {len(missing)} frames: "
        f"{shortened(sorted(missing, key=natural_key))}"
        for run, found in zip(runs, frames, strict=True)
        for name, names in everything.items()
        if (missing := names - set(found.get(name, ())))
    ]
    if problems:
        raise InputError(listed(problems))


def mask_encoding(folder: Path) -> MaskEncoding:
    """Return the encoding of a video's masks: RGB if any mask uses it, else that of the first mask.

    Raises:
      InputError: there are no masks, or one is damaged.
    """
    first: MaskEncoding | None = None
    for path in sorted(folder.glob("*.png")):
        encoding = read_mask(path).encoding
        first = first or encoding
        if encoding.kind != "grey_rgb":  # a colour mask without objects looks grey
            return encoding
    if first is None:
        raise InputError(f"{folder} holds no masks")
    return first
