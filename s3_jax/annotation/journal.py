"""A file of changes: one JSON line per change, flushed to disk at once.

After a crash, the file is read back without a truncated last line. While the disk is full, lines
wait in memory; they are written together with the next line that can be written.
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

    problem: reason why the last attempt to write failed, or "".
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem = ""
        self._waiting: list[bytes] = []
        self._end = 0

    def read(self) -> Iterator[Entry]:
        """Yield all entries; later lines are written after them.

        Raises:
          InputError: a line other than a truncated last one is damaged.
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
        """Add a line; return True if everything up to it is on disk."""
        self._waiting.append(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        return self.flush()

    def flush(self) -> bool:
        """Write the waiting lines; return True if everything is on disk."""
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
        """Write after the last complete line, overwriting what a failed attempt left behind."""
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
            file.truncate(self._end)
            file.seek(self._end)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
