"""All data sets of a training run as one numbered list of clips, each made on its own."""

import dataclasses

import numpy as np
from absl import logging
from jaxtyping import UInt8

from s3_jax.data.clips import sample_clip
from s3_jax.data.config import DataConfig, Number
from s3_jax.data.merging import Clip, across, hidden, limit, paste
from s3_jax.data.sampling import max_skip
from s3_jax.data.sources import Source, open_source
from s3_jax.errors import InputError
from s3_jax.media.image_files import shortened


@dataclasses.dataclass(frozen=True, eq=False)
class Share:
    """A source, its items that are long enough, and how many clips of an epoch it provides."""

    source: Source
    items: list[int]
    clips: int


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """A clip, ids 1..num_objects, and what was given up on before it was found."""

    frames: UInt8[np.ndarray, "t h w 3"]
    masks: UInt8[np.ndarray, "t h w"]
    num_objects: int
    failures: tuple[str, ...]


class Mixture:
    """Clips by number; `len` of them make an epoch, in which source i provides its share.

    Raises:
      InputError: a data set is missing, empty, incomplete, or has no video of a clip's length.
    """

    def __init__(self, config: DataConfig):
        self._config = config
        self._shares = [_share(open_source(entry), config.num_frames) for entry in config.sources]
        self._ends = np.cumsum([share.clips for share in self._shares])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def sample(self, entry: int, epoch: int, number: int, progress: Number) -> Sample:
        """The clip for an entry of an epoch; a pure function of the arguments.

        What cannot be read, or shows no object, is replaced by another item of the same source.

        number: of the clip in the whole run, the seed of all that is random in it.
        progress: share of the training that is done.

        Raises:
          InputError: no replacement was any better.
        """
        config = self._config
        share, item = self._locate(entry, epoch)
        skip = max_skip(config.skips, progress, share.source.frame_interval)
        failures: list[str] = []
        for attempt in range(config.sequences_tried):
            rng = np.random.default_rng([config.seed, number, attempt])
            if attempt:
                item = share.items[rng.integers(len(share.items))]
            try:
                clip = self._clip(rng, share, item, skip)
            except InputError as error:
                failures.append(str(error))
                continue
            if clip is not None:
                return Sample(clip.frames, clip.masks, clip.num_objects, tuple(failures))
        raise InputError(_hopeless(share.source.name, config.sequences_tried, failures))

    def _locate(self, entry: int, epoch: int) -> tuple[Share, int]:
        """The share that an entry falls into, and the item it stands for in this epoch."""
        which = int(np.searchsorted(self._ends, entry, side="right"))
        share = self._shares[which]
        place = entry - int(self._ends[which]) + share.clips
        # A share that is no multiple of the items goes on next epoch where it ended.
        return share, share.items[(place + epoch * share.clips) % len(share.items)]

    def _clip(self, rng: np.random.Generator, share: Share, item: int, skip: int) -> Clip | None:
        """A clip of the item, maybe merged with one of another item of its source."""
        config = self._config
        clip = self._single(rng, share, item, skip)
        if clip is None:
            return None
        if clip.num_objects < config.max_objects and rng.random() < config.merge:
            other = self._other(rng, share, clip, skip)
            if other is not None:
                clip = limit(rng, paste(other, clip), config.max_objects)
        if config.occlude and rng.random() < config.occlude:
            other = self._other(rng, share, clip, skip)
            if other is not None:
                clip = limit(rng, hidden(clip, other), config.max_objects)
        return clip if clip.num_objects else None

    def _other(self, rng: np.random.Generator, share: Share, lower: Clip, skip: int) -> Clip | None:
        """A clip of any item of the source, to be pasted over `lower`."""
        item = share.items[rng.integers(len(share.items))]
        clip = self._single(rng, share, item, skip)
        if clip is None or not self._config.cross or rng.random() >= self._config.cross:
            return clip
        return across(rng, clip, lower)

    def _single(self, rng: np.random.Generator, share: Share, item: int, skip: int) -> Clip | None:
        video = share.source.open(item, rng, self._config.max_objects)
        return sample_clip(rng, video, self._config, skip)


def _share(source: Source, num_frames: int) -> Share:
    """Photographs and videos of at least a clip's length."""
    lengths = [source.num_frames(item) for item in range(len(source))]
    items = [item for item, length in enumerate(lengths) if length == 1 or length >= num_frames]
    short = len(lengths) - len(items)
    if not items:
        raise InputError(
            f"{source.name}: all {short} videos have fewer annotated frames than a clip, which has "
            f"{num_frames}; the longest has {max(lengths, default=0)}: lower num_frames"
        )
    if short:
        logging.warning(
            "%s: %d of %d videos have fewer annotated frames than a clip (%d) and are left out",
            source.name,
            short,
            len(lengths),
            num_frames,
        )
    return Share(source, items, max(1, round(source.multiplier * len(items))))


def _hopeless(name: str, tried: int, failures: list[str]) -> str:
    if failures:
        several = shortened(list(dict.fromkeys(failures)), 2)
        return f"{name}: {len(failures)} of {tried} videos tried cannot be read: {several}"
    return (
        f"{name}: none of {tried} videos tried shows an object in the first frame of a clip; where "
        "masks hold only 0 and 255, set binary=True"
    )
