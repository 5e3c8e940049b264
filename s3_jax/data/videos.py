"""Videos whose frames and object ids are decoded one at a time, on demand."""

import dataclasses
import functools
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer, UInt8

from s3_jax.data.decoding import decode_ids, decode_image, without_void
from s3_jax.data.folders import AnnotatedVideo
from s3_jax.data.records import VideoRecord
from s3_jax.data.synthetic import Scene, render
from s3_jax.errors import InputError, reason

Image = UInt8[np.ndarray, "_ _ 3"]
Ids = Integer[np.ndarray, "_ _"]


@runtime_checkable
class Video(Protocol):
    """Annotated frames, numbered from 0 and decoded one at a time.

    name: name used in messages.
    num_frames: number of annotated frames.
    empty: frames known to show no object. Other frames may also turn out to be empty.
    background: a picture that replaces the objects' own background, if any.
    """

    @property
    def name(self) -> str: ...

    @property
    def num_frames(self) -> int: ...

    @property
    def empty(self) -> frozenset[int]: ...

    @property
    def background(self) -> Path | None: ...

    def image(self, index: int, reduction: int = 1) -> Image:
        """Return an RGB frame, possibly reduced by up to `reduction` (1, 2, 4 or 8) for speed.

        Raises:
          InputError: the frame is damaged or missing.
        """
        ...

    def ids(self, index: int) -> Ids:
        """Return the object ids of a frame at full size, 0 for background; errors as in `image`."""
        ...


@dataclasses.dataclass(frozen=True)
class FileVideo:
    """A video of image and mask files."""

    listed: AnnotatedVideo
    empty: frozenset[int]
    binary: bool
    background: Path | None = None

    @property
    def name(self) -> str:
        return str(self.listed.images)

    @property
    def num_frames(self) -> int:
        return len(self.listed.frames)

    def image(self, index: int, reduction: int = 1) -> Image:
        file = self.listed.images / self.listed.frames[index][0]
        return decode_image(read_bytes(file), str(file), reduction)

    def ids(self, index: int) -> Ids:
        file = self.listed.annotations / self.listed.frames[index][1]
        return without_void(decode_ids(read_bytes(file), str(file)), self.binary)


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A video of one frame whose ids are already decoded."""

    path: Path
    objects: Ids
    background: Path | None = None
    num_frames: int = 1
    empty: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        return str(self.path)

    def image(self, index: int, reduction: int = 1) -> Image:
        return decode_image(read_bytes(self.path), str(self.path), reduction)

    def ids(self, index: int) -> Ids:
        return self.objects


@dataclasses.dataclass(frozen=True)
class RecordVideo:
    """A video from a record, with its frames still encoded."""

    record: VideoRecord
    empty: frozenset[int]
    background: Path | None = None

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def num_frames(self) -> int:
        return len(self.record.frames)

    def image(self, index: int, reduction: int = 1) -> Image:
        where = f"of frame {index} of the record {self.name}"
        return decode_image(self.record.frames[index], where, reduction)

    def ids(self, index: int) -> Ids:
        where = f"of frame {index} of the record {self.name}"
        return without_void(decode_ids(self.record.segmentations[index], where), binary=False)


class SceneVideo:
    """A synthetic scene at integer times; each is rendered once for both image and ids."""

    empty: frozenset[int] = frozenset()
    background: Path | None = None
    name = "synthetic scene"

    def __init__(self, scene: Scene, num_frames: int):
        self.num_frames = num_frames
        self._render = functools.lru_cache(maxsize=32)(functools.partial(render, scene))

    def image(self, index: int, reduction: int = 1) -> Image:
        return self._render(index)[0]

    def ids(self, index: int) -> Ids:
        return self._render(index)[1]


def read_bytes(file: Path) -> bytes:
    """Return a file's content.

    Raises:
      InputError: it is missing or cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file}: {reason(error)}") from error
