"""Videos in which objects from different clips cross, to measure identity preservation.

    for clip in crossing_clips(data, count=12): ...

The objects come from the sources of a `DataConfig`, one from each clip. Each is moved across the
others and pasted over them, so every mask is known, including those of hidden objects.
"""

from collections.abc import Iterator

import numpy as np

from s3_jax.data.clips import sample_clip
from s3_jax.data.config import DataConfig
from s3_jax.data.merging import Clip, over, paste
from s3_jax.data.sources import Source, open_source
from s3_jax.errors import InputError

FEWEST_PIXELS = 0.01  # smallest fraction of the first frame that an object may cover
HIDDEN = 1 / 3  # fraction of an object that another one must hide in some frame
TRIES = 60


def crossing_clips(data: DataConfig, count: int) -> Iterator[Clip]:
    """Yield clips in which objects from different items hide one another: two, then three, in turn.

    In each clip, every object is visible in the first frame. One of them loses more than a third of
    its area to another in some frame, and is visible again in the last.

    Raises:
      InputError: a data set cannot be read, or `TRIES` attempts produced no such clip.
    """
    sources = [open_source(source) for source in data.sources]
    for number in range(count):
        yield _crossing(np.random.default_rng([data.seed, number]), sources, data, 2 + number % 2)


def _crossing(
    rng: np.random.Generator, sources: list[Source], data: DataConfig, objects: int
) -> Clip:
    for _ in range(TRIES):
        layers = [_layer(rng, sources, data) for _ in range(objects)]
        clip = _stack(rng, [layer for layer in layers if layer is not None])
        if clip is not None and clip.num_objects == objects:
            return clip
    raise InputError(f"no {objects} objects of {[s.name for s in sources]} cross in {TRIES} draws")


def _layer(rng: np.random.Generator, sources: list[Source], data: DataConfig) -> Clip | None:
    source = sources[rng.integers(len(sources))]
    video = source.open(int(rng.integers(len(source))), rng, 1)
    clip = sample_clip(rng, video, data, skip=1)
    return clip if clip is not None and _large(clip) else None


def _stack(rng: np.random.Generator, layers: list[Clip]) -> Clip | None:
    """Paste the layers over one another, each passing over those below; None if none is hidden."""
    if len(layers) < 2:
        return None
    stacked, crossed = layers[0], False
    for layer in layers[1:]:
        below, stacked = stacked, paste(over(rng, layer, stacked), stacked)
        crossed |= _hides(below, stacked)
    return stacked if crossed and _large(stacked) else None


def _areas(clip: Clip) -> np.ndarray:
    """Return the number of pixels of every object (columns) in every frame (rows)."""
    ids = np.arange(1, clip.num_objects + 1)
    return (clip.masks[..., None] == ids.reshape(1, 1, 1, -1)).sum(axis=(1, 2))


def _large(clip: Clip) -> bool:
    return bool((_areas(clip)[0] >= FEWEST_PIXELS * clip.masks[0].size).all())


def _hides(below: Clip, stacked: Clip) -> bool:
    """Return True if an object loses more than `HIDDEN` of its area, but not in the last frame."""
    whole = _areas(below).astype(float)
    left = _areas(stacked)[:, : below.num_objects] / np.maximum(whole, 1)
    known = whole >= FEWEST_PIXELS * below.masks[0].size
    crossed = (known & (left < 1 - HIDDEN)).any(axis=0)
    return bool((crossed & known[-1] & (left[-1] > 1 - HIDDEN)).any())
