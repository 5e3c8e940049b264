"""Results in a folder: a mask file for every frame, and a log of their metadata."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from s3_jax.annotation.found import Found, FoundInMemory, Origin
from s3_jax.errors import InputError
from s3_jax.files import replacing
from s3_jax.media.mask_encoding import encoding_for
from s3_jax.media.mask_files import read_mask
from s3_jax.media.output_paths import inside
from s3_jax.media.writers import write_mask

LOG = "found.jsonl"


class FoundFolder(FoundInMemory):
    """Results that are on disk, as masks/<frame>.png, as soon as they are stored.

    Args:
      path: the folder of the project; existing results are read.
      frame_names: name of every frame.
      palette: colours of ids as R, G, B bytes, for the files written from now on.
    """

    def __init__(self, path: Path, frame_names: Sequence[str], palette: bytes) -> None:
        super().__init__()
        self.palette = palette
        self._path, self._names = path, frame_names
        self._known: dict[int, tuple[dict[int, float], Origin]] = {}
        (path / "masks").mkdir(exist_ok=True)
        self._replay()
        self._compact()

    def settle(self, index: int) -> None:
        """See `FoundInMemory.settle`."""
        self._log({"settled": index})
        super().settle(index)

    def touch(self, indices: Iterable[int]) -> None:
        """See `FoundInMemory.touch`."""
        outdated = sorted(self.settled & set(indices))
        if outdated:
            self._log({"outdated": outdated})
        super().touch(outdated)

    def confidence(self, index: int) -> dict[int, float]:
        """Return the confidence of a frame's objects without reading its mask; {} if unknown."""
        return dict(self._known[index][0]) if index in self._known else {}

    def __getitem__(self, index: int) -> Found:
        confidence, origin = self._known[index]
        try:
            ids = read_mask(self._file(index)).ids
        except InputError as error:
            raise KeyError(index) from error  # the file was removed
        return Found(index, ids, dict(confidence), origin)

    def __setitem__(self, index: int, found: Found) -> None:
        encoding = encoding_for(int(found.ids.max(initial=0)), self.palette)
        write_mask(self._file(index), found.ids, encoding)
        self._log(_line(index, found.confidence, found.origin))
        self._known[index] = dict(found.confidence), found.origin

    def __delitem__(self, index: int) -> None:
        del self._known[index]
        self._log({"deleted": index})
        self._file(index).unlink(missing_ok=True)
        self.settled.discard(index)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._known))

    def __len__(self) -> int:
        return len(self._known)

    def _file(self, index: int) -> Path:
        return inside(self._path / "masks", f"{self._names[index]}.png", self._path)

    def _log(self, line: dict[str, Any]) -> None:
        with (self._path / LOG).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _replay(self) -> None:
        """Read the log, ignoring invalid lines such as a power failure leaves behind."""
        log = self._path / LOG
        for text in log.read_text("utf-8", "replace").splitlines() if log.exists() else ():
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                self._apply(json.loads(text))
        present = {path.stem for path in (self._path / "masks").glob("*.png")}
        for index in [i for i in self._known if self._names[i] not in present]:
            del self._known[index]
        self.settled &= set(self._known)

    def _apply(self, line: dict[str, Any]) -> None:
        if "outdated" in line:
            self.settled.difference_update(line["outdated"])
        elif "settled" in line:
            self.settled.add(int(line["settled"]))
        elif "deleted" in line:
            self._known.pop(int(line["deleted"]), None)
            self.settled.discard(int(line["deleted"]))
        elif 0 <= int(line["frame"]) < len(self._names) and line["origin"] in get_args(Origin):
            confidence = {int(id_): float(value) for id_, value in line["confidence"].items()}
            self._known[int(line["frame"])] = confidence, line["origin"]

    def _compact(self) -> None:
        """Rewrite the log with the same content in fewer lines."""
        lines = [_line(index, *self._known[index]) for index in self]
        lines += [{"settled": index} for index in sorted(self.settled)]
        with replacing(self._path / LOG) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _line(index: int, confidence: dict[int, float], origin: Origin) -> dict[str, Any]:
    rounded = {str(id_): round(value, 4) for id_, value in confidence.items()}
    return {"frame": index, "confidence": rounded, "origin": origin}
