"""What was found, as files: masks/<frame>.png, as `s3 segment` writes them, and confidences.

Every mask is written when it is made, as a whole or not at all. Confidences are lines of
confidence.jsonl, of which the last one of a frame counts.
"""

import json
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s3_jax.annotation.found import Found
from s3_jax.errors import InputError
from s3_jax.media.mask_encoding import MaskEncoding
from s3_jax.media.mask_files import read_mask
from s3_jax.media.palette import voc_palette
from s3_jax.media.writers import write_mask

_PALETTE = MaskEncoding("palette", voc_palette().tobytes())
_DEEP = MaskEncoding("grey16")


class FoundOnDisk(MutableMapping[int, Found]):
    """Results by frame, in a directory.

    names: of all frames, which the files are named after.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.masks = folder / "masks"
        self._names = names
        self._notes_path = folder / "confidence.jsonl"
        self.masks.mkdir(parents=True, exist_ok=True)
        self._notes: dict[int, dict[str, Any]] = dict(self._read_notes())

    def confidence(self, index: int) -> dict[int, float]:
        """Confidence by object id in a frame; empty where there is no result."""
        note = self._notes.get(index, {})
        return {int(id_): value for id_, value in note.get("confidence", {}).items()}

    def __getitem__(self, index: int) -> Found:
        if index not in self._notes:
            raise KeyError(index)
        ids = read_mask(self._path(index)).ids
        return Found(index, ids, self.confidence(index), self._notes[index]["origin"])

    def __setitem__(self, index: int, found: Found) -> None:
        write_mask(self._path(index), found.ids, _PALETTE if found.ids.max() < 256 else _DEEP)
        confidence = {str(id_): round(value, 4) for id_, value in found.confidence.items()}
        self._note({"frame": index, "confidence": confidence, "origin": found.origin})

    def __delitem__(self, index: int) -> None:
        del self._notes[index]
        self._path(index).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._notes))

    def __len__(self) -> int:
        return len(self._notes)

    def _path(self, index: int) -> Path:
        return self.masks / f"{self._names[index]}.png"

    def _note(self, note: dict[str, Any]) -> None:
        with self._notes_path.open("a") as file:
            file.write(json.dumps(note) + "\n")
        self._notes[note["frame"]] = note

    def _read_notes(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the notes of frames whose mask is there; a torn line is passed over."""
        if not self._notes_path.exists():
            return
        for line in self._notes_path.read_text().splitlines():
            try:
                note = json.loads(line)
                index = int(note["frame"])
            except (ValueError, KeyError, TypeError):
                continue
            if 0 <= index < len(self._names) and self._path(index).exists():
                yield index, note


def ids_of(results: FoundOnDisk, index: int) -> np.ndarray | None:
    """The ids found in a frame, None where there is no result or its file is damaged."""
    try:
        return results[index].ids
    except (KeyError, InputError):
        return None
