"""Data sets as numbered items; each opens as a `Video`, which decodes frames and ids on demand.

A photograph is a video of one frame. Sources with random content (the objects of a region map, a
synthetic scene) draw it from the generator that is passed to `open`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8

from s3_jax.data import config as data_config
from s3_jax.data import empty_masks, folders, records
from s3_jax.data.decoding import decode_foreground, decode_ids, decode_image, without_void
from s3_jax.data.regions import sample_objects
from s3_jax.data.synthetic import sample_scene
from s3_jax.data.videos import (
    FileVideo,
    Photograph,
    RecordVideo,
    SceneVideo,
    Video,
    read_bytes,
)
from s3_jax.errors import InputError


@runtime_checkable
class Source(Protocol):
    """A data set; see `data.config.VideoFolderConfig` for frame_interval and multiplier."""

    name: str
    frame_interval: int
    multiplier: data_config.Number

    def __len__(self) -> int: ...

    def num_frames(self, item: int) -> int:
        """Return the number of annotated frames of an item."""
        ...

    def open(self, item: int, rng: np.random.Generator, max_objects: int) -> Video:
        """Open an item; `max_objects` limits generated objects, not annotated ones.

        Raises:
          InputError: the item is damaged or missing.
        """
        ...


def open_source(config: data_config.SourceConfig) -> Source:
    """Open the source that a configuration describes; files are listed but not decoded.

    Raises:
      InputError: the data set is missing, empty or incomplete.
    """
    match config:
        case data_config.VideoFolderConfig():
            return VideoFolderSource(config)
        case data_config.ImageFolderConfig():
            return ImageFolderSource(config)
        case data_config.RegionFolderConfig():
            return RegionFolderSource(config)
        case data_config.RecordsConfig():
            return RecordSource(config)
        case data_config.SyntheticConfig():
            return SyntheticSource(config)


class VideoFolderSource:
    """Videos as directories of frames and of masks."""

    def __init__(self, config: data_config.VideoFolderConfig):
        root = Path(config.path)
        self.name = config.path
        self.frame_interval = config.frame_interval
        self.multiplier = config.multiplier
        self._binary = config.binary
        self._videos = folders.annotated_videos(
            root, config.images, config.annotations, config.subset
        )
        self._videos = folders.chosen(self._videos, config.videos, config.held_out)
        if config.stills:
            self._videos = [still for video in self._videos for still in folders.stills(video)]
        known = empty_masks.read(root / config.empty_masks) if config.empty_masks else {}
        self._empty = {name: frozenset(stems) for name, stems in known.items()}

    def __len__(self) -> int:
        return len(self._videos)

    def num_frames(self, item: int) -> int:
        return len(self._videos[item].frames)

    def open(self, item: int, rng: np.random.Generator, max_objects: int) -> Video:
        listed = self._videos[item]
        stems = self._empty.get(listed.name, frozenset())
        empty = frozenset(
            i for i, (_, mask) in enumerate(listed.frames) if Path(mask).stem in stems
        )
        return FileVideo(listed, empty, self._binary)


class ImageFolderSource:
    """Photographs with a mask of one object, or of several instances."""

    frame_interval = 1

    def __init__(self, config: data_config.ImageFolderConfig):
        self.name = config.path
        self.multiplier = config.multiplier
        self._pairs = folders.image_mask_pairs(Path(config.path))
        self._instances = config.instances
        self._backgrounds = Backgrounds(config.backgrounds, config.background_share)

    def __len__(self) -> int:
        return len(self._pairs)

    def num_frames(self, item: int) -> int:
        return 1

    def open(self, item: int, rng: np.random.Generator, max_objects: int) -> Video:
        image, mask = self._pairs[item]
        decode = decode_instances if self._instances else decode_foreground
        return Photograph(image, decode(read_bytes(mask), str(mask)), self._backgrounds.sample(rng))


class RegionFolderSource:
    """Photographs with region maps, from which objects are sampled."""

    frame_interval = 1

    def __init__(self, config: data_config.RegionFolderConfig):
        self.name = config.path
        self.multiplier = config.multiplier
        self._area = config.area
        self._pairs = folders.region_pairs(Path(config.path))
        self._backgrounds = Backgrounds(config.backgrounds, config.background_share)

    def __len__(self) -> int:
        return len(self._pairs)

    def num_frames(self, item: int) -> int:
        return 1

    def open(self, item: int, rng: np.random.Generator, max_objects: int) -> Video:
        image, path = self._pairs[item]
        regions = decode_ids(read_bytes(path), str(path))
        count = int(rng.integers(1, max_objects + 1))
        ids = sample_objects(rng, regions, count, self._area)
        return Photograph(image, ids, self._backgrounds.sample(rng))


class RecordSource:
    """A TFDS data set of videos, whose files each process opens on its first read."""

    def __init__(self, config: data_config.RecordsConfig):
        self.name = config.path
        self.frame_interval = config.frame_interval
        self.multiplier = config.multiplier
        self._records = records.VideoRecords(Path(config.path), config.split)
        self._index = self._records.index()

    def __len__(self) -> int:
        return len(self._index)

    def num_frames(self, item: int) -> int:
        return self._index[item].num_frames

    def open(self, item: int, rng: np.random.Generator, max_objects: int) -> Video:
        return RecordVideo(self._records.read(item), self._index[item].empty)


class SyntheticSource:
    """Procedural videos; every `open` creates a new one, so item numbers have no meaning."""

    def __init__(self, config: data_config.SyntheticConfig):
        self.name = "synthetic scenes"
        self.frame_interval = config.frame_interval
        self.multiplier = config.multiplier
        self._config = config
        self._pictures = Pictures(
            folders.pictures(Path(config.pictures)) if config.pictures else ()
        )

    def __len__(self) -> int:
        return self._config.scenes

    def num_frames(self, item: int) -> int:
        return self._config.num_frames

    def open(self, item: int, rng: np.random.Generator, max_objects: int) -> Video:
        config = self._config
        few, many = config.objects
        count = int(rng.integers(few, many + 1))
        textured = len(self._pictures) > 0 and rng.random() < config.picture_share
        scene = sample_scene(
            rng,
            config.height,
            config.width,
            count,
            config.scene,
            self._pictures if textured else (),
        )
        return SceneVideo(scene, config.num_frames)


def decode_instances(encoded: bytes, where: str) -> UInt8[np.ndarray, "h w"]:
    """Decode the instance numbers of a mask; small instances and void pixels become 0.

    Raises:
      InputError: the data are damaged, truncated or not a mask, or have more instances than 8 bits
        can hold.
    """
    ids = without_void(decode_ids(encoded, where), binary=False)
    if ids.dtype != np.uint8:
        raise InputError(f"{where} has more than 8 bits: number its instances 1 to 254")
    areas = np.bincount(ids.ravel(), minlength=256)
    kept = np.flatnonzero(areas >= data_config.LEAST_INSTANCE * ids.size)
    table = np.zeros(256, np.uint8)
    table[kept] = kept
    return cv2.LUT(ids, table)


class Backgrounds:
    """Background pictures for a fraction of all samples, or for none if `path` is empty."""

    def __init__(self, path: str, share: data_config.Number):
        self._files = folders.pictures(Path(path)) if path else []
        self._share = share

    def sample(self, rng: np.random.Generator) -> Path | None:
        """Sample the file of a background picture, or None."""
        if not self._files or rng.random() >= self._share:
            return None
        return self._files[rng.integers(len(self._files))]


class Pictures(Sequence):
    """A sequence of photographs that are decoded on access."""

    def __init__(self, files: Sequence[Path]):
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # int only
        file = self._files[index]
        return decode_image(read_bytes(file), str(file))
