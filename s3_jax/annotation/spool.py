"""Temporary storage for the probabilities of many frames, in bounded memory."""

import tempfile
import zlib
from typing import IO, NamedTuple

import numpy as np

from s3_jax.propagation.joining import Quantized

IN_MEMORY = 64 * 2**20  # bytes; beyond this, everything moves to a temporary file


class _Place(NamedTuple):
    start: int
    size: int
    ids: tuple[int, ...]
    shape: tuple[int, ...]


class Spool:
    """Probabilities of frames that wait for the other direction, first in memory, then on disk."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 see __exit__
        self._places: dict[int, _Place] = {}

    def put(self, index: int, frame: Quantized) -> None:
        """Store a frame's probabilities, compressed."""
        data = zlib.compress(frame.prob.tobytes(), 1)
        place = self._file.seek(0, 2)
        self._file.write(data)
        self._places[index] = _Place(place, len(data), frame.object_ids, frame.prob.shape)

    def get(self, index: int) -> Quantized | None:
        """Return the probabilities stored for a frame, or None."""
        if index not in self._places:
            return None
        place = self._places[index]
        self._file.seek(place.start)
        data = zlib.decompress(self._file.read(place.size))
        return Quantized(place.ids, np.frombuffer(data, np.uint8).reshape(place.shape))

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
