"""A file to which every change is added, one JSON line each, and flushed to the disk at once.

After a crash it is read back; a last line that was cut off is dropped. When the disk is full, lines
wait in memory and are written with the next one that succeeds.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s3_jax.errors import InputError, reason

Entry = dict[str, Any]


class Journal:
    """The lines of one file.

    problem: why the last attempt to write failed, empty where it did not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self._waiting: list[bytes] = []
        self._end = 0

    def read(self) -> Iterator[Entry]:
        """Yield what was written, and go on writing behind it.

        Raises:
          InputError: a line that is not the last one is damaged.
        """
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise InputError(
                    f"{self.path}, line {number}, is damaged: remove that line, which loses that "
                    "one change, or give another --output"
                ) from error
            yield entry
        self._end = len(whole)

    def append(self, entry: Entry) -> bool:
        """Add a line; tell whether everything up to it is on the disk."""
        self._waiting.append(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        return self.flush()

    def flush(self) -> bool:
        """Write what waits; tell whether everything is on the disk."""
        if not self._waiting:
            return True
        text = b"".join(self._waiting)
        try:
            self._write(text)
        except OSError as error:
            self.problem = f"cannot write {self.path}: {reason(error)}"
            return False
        self._end += len(text)
        self._waiting, self.problem = [], ""
        return True

    def _write(self, text: bytes) -> None:
        """Write behind the last whole line, over what a failed attempt left."""
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            file.truncate(self._end)
            file.seek(self._end)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
