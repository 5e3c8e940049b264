"""Videos in ArrayRecord files in TFDS's layout, read without decoding frames.

The features are those of TFDS's own `davis` data set, whose files can therefore be read too:
video: a sequence of {frames: image, segmentations: image of one channel}, and
metadata: {num_frames, video_name}.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from s3_jax.errors import InputError, reason

VIDEOS = "videos"  # key of the index in the data set's metadata


@dataclasses.dataclass(frozen=True)
class VideoRecord:
    """A video whose frames and masks are encoded as PNG or JPEG."""

    name: str
    frames: list[bytes]
    segmentations: list[bytes]


@dataclasses.dataclass(frozen=True)
class Entry:
    """Index entry of a video; `empty` lists the frames known to show no object."""

    name: str
    num_frames: int
    empty: frozenset[int]


class VideoRecords:
    """The videos of one split. Files are opened on first use, so instances can be pickled.

    Raises:
      InputError: the path is not a prepared data set, or its features differ.
    """

    def __init__(self, path: Path, split: str):
        self.path = path
        self.split = split
        features = self._builder().info.features
        if features is None or not _same_structure(features, features_of(encoded=False)):
            raise InputError(
                f"{path} holds other features than video{{frames, segmentations}} and "
                "metadata{num_frames, video_name}: prepare it with s3 prepare"
            )

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "split": self.split}

    def index(self) -> list[Entry]:
        """Return the entries of the split in order, reading the videos if no index was stored."""
        stored = (self._builder().info.metadata or {}).get(VIDEOS, {}).get(self.split)
        if stored is None:
            return [self._entry(item) for item in range(len(self._source))]
        return [Entry(v["name"], v["num_frames"], frozenset(v["empty"])) for v in stored]

    def read(self, item: int) -> VideoRecord:
        """Read a video without decoding its frames.

        Raises:
          InputError: the file is damaged or missing.
        """
        try:
            example = self._features.deserialize_example_np(self._source[item])
        except Exception as error:  # ArrayRecord and protobuf raise many kinds of errors
            raise InputError(
                f"cannot read video {item} of {self.path}: {reason(error)}; prepare it again"
            ) from error
        video, name = example["video"], example["metadata"]["video_name"].decode()
        return VideoRecord(name, list(video["frames"]), list(video["segmentations"]))

    def _entry(self, item: int) -> Entry:
        record = self.read(item)
        return Entry(record.name, len(record.frames), frozenset())

    def _builder(self) -> tfds.core.DatasetBuilder:
        try:
            builder = tfds.builder_from_directory(self.path)
        except Exception as error:  # a missing or damaged description raises many kinds of errors
            raise InputError(
                f"{self.path} is no prepared data set ({reason(error)}): give the directory "
                "with dataset_info.json"
            ) from error
        if self.split not in builder.info.splits:
            raise InputError(
                f"{self.path} has no split {self.split!r}, only {sorted(builder.info.splits)}"
            )
        return builder

    @functools.cached_property
    def _source(self) -> Any:
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        return self._builder().as_data_source(self.split, deserialize_method=raw)

    @functools.cached_property
    def _features(self) -> tfds.features.FeaturesDict:
        return features_of(encoded=True)


def features_of(encoded: bool) -> tfds.features.FeaturesDict:
    """Return the features of a data set of videos; if `encoded`, images stay encoded bytes."""
    stored = tfds.features.Tensor(shape=(), dtype=np.object_)
    frames, masks = stored, stored
    if not encoded:
        frames = tfds.features.Image(shape=(None, None, 3))
        masks = tfds.features.Image(shape=(None, None, 1), use_colormap=True)
    return tfds.features.FeaturesDict(
        {
            "video": tfds.features.Sequence({"frames": frames, "segmentations": masks}),
            "metadata": {"num_frames": np.int64, "video_name": np.str_},
        }
    )


def _same_structure(features: Any, expected: Any) -> bool:
    return bool(features.get_tensor_info() == expected.get_tensor_info())
