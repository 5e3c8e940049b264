"""Given masks in a folder, one file per frame; every change replaces the whole file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s3_jax.annotation.given import Given, Mask
from s3_jax.errors import InputError, reason
from s3_jax.media.json_files import read_json
from s3_jax.media.rle import decode_rle, encode_rle
from s3_jax.media.writers import write_json


class GivenFolder(Given):
    """Given masks that are on disk as soon as `put` returns.

    Args:
      path: the folder, created if necessary; existing masks are read.
      frame_count: number of frames in the video.
      size: (height, width) of its frames.

    Raises:
      InputError: a file in the folder is damaged.
    """

    def __init__(self, path: Path, frame_count: int, size: Sequence[int]) -> None:
        super().__init__()
        self._path = path
        self._size = (int(size[0]), int(size[1]))
        path.mkdir(parents=True, exist_ok=True)
        for file in sorted(path.glob("[0-9]*.json")):
            self._read(file, frame_count)

    def put(self, index: int, masks: Mapping[int, Mask], prompts: Any = None) -> None:
        """Replace all masks of a frame (see `Given.put`).

        Raises:
          OSError: the file cannot be written; nothing is changed in this case.
        """
        file = self._path / f"{index:06d}.json"
        if masks:
            texts = {str(int(id_)): encode_rle(mask) for id_, mask in masks.items()}
            size = next(iter(masks.values())).shape
            write_json(file, {"size": list(size), "masks": texts, "prompts": prompts})
        else:
            file.unlink(missing_ok=True)
        super().put(index, masks, prompts)

    def _read(self, file: Path, frame_count: int) -> None:
        try:
            content, index = read_json(file), int(file.stem)
            if index >= frame_count or tuple(content["size"]) != self._size:
                raise ValueError("it belongs to another video")
            masks = {_id(id_): decode_rle(t, self._size) for id_, t in content["masks"].items()}
            super().put(index, masks, content["prompts"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{file} cannot be read as masks of a frame ({reason(error)}): delete it to "
                "continue without them"
            ) from error


def _id(text: str) -> int:
    if int(text) <= 0:
        raise ValueError(f"{text} is not an object id")
    return int(text)
