"""All data sets of a training run, as one numbered list of independent clips."""

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
    """A source, its items that are long enough, and its number of clips per epoch."""

    source: Source
    items: list[int]
    clips: int


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """A clip with ids 1..num_objects, and messages about items that failed before it."""

    frames: UInt8[np.ndarray, "t h w 3"]
    masks: UInt8[np.ndarray, "t h w"]
    num_objects: int
    failures: tuple[str, ...]


class Mixture:
    """Clips by number; an epoch has `len` of them, and each source contributes its share.

    Raises:
      InputError: a data set is missing, empty, incomplete, or has no video as long as a clip.
    """

    def __init__(self, config: DataConfig):
        self._config = config
        least = 1 if config.bounce else config.num_frames
        self._shares = [_share(open_source(entry), least) for entry in config.sources]
        self._ends = np.cumsum([share.clips for share in self._shares])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def sample(self, entry: int, epoch: int, number: int, progress: Number) -> Sample:
        """Return the clip for an entry of an epoch; a pure function of its arguments.

        An item that cannot be read or shows no object is replaced by another one of the same
        source.

        Args:
          number: number of the clip in the whole run; seeds everything random in it.
          progress: completed fraction of the training run, 0 to 1.

        Raises:
          InputError: the replacements also failed.
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
        """Return the share to which an entry belongs, and its item in this epoch."""
        which = int(np.searchsorted(self._ends, entry, side="right"))
        share = self._shares[which]
        place = entry - int(self._ends[which]) + share.clips
        # If clips per epoch are not a multiple of the items, continue where the last epoch ended.
        return share, share.items[(place + epoch * share.clips) % len(share.items)]

    def _clip(self, rng: np.random.Generator, share: Share, item: int, skip: int) -> Clip | None:
        """Return a clip of the item, possibly merged with a clip of another item of its source."""
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
        """Return a clip of a random item of the source, to be pasted over `lower`."""
        item = share.items[rng.integers(len(share.items))]
        clip = self._single(rng, share, item, skip)
        if clip is None or not self._config.cross or rng.random() >= self._config.cross:
            return clip
        return across(rng, clip, lower)

    def _single(self, rng: np.random.Generator, share: Share, item: int, skip: int) -> Clip | None:
        video = share.source.open(item, rng, self._config.max_objects)
        return sample_clip(rng, video, self._config, skip)


def _share(source: Source, num_frames: int) -> Share:
    """Keep the photographs, and the videos that are at least as long as a clip."""
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
        f"{name}: none of {tried} videos tried shows an object in the first frame of a clip; if "
        "masks hold only 0 and 255, set binary=True"
    )
