"""Atomic file replacement, and locks on directories."""

import contextlib
import fcntl
import os
import weakref
from collections.abc import Iterator
from pathlib import Path

from s3_jax.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without error.

    The content is flushed to disk first, so that a power failure cannot leave an empty file. An
    OSError that names no file, or the temporary one, is raised again with the name `path`.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # a leftover link would be followed
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno and _names(error, temporary):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _names(error: OSError, temporary: Path) -> bool:
    """Return True if an error names the temporary file, which FFmpeg calls `file:...`."""
    return error.filename is None or str(error.filename).removeprefix("file:") == str(temporary)


class Lock:
    """Lock of a directory until the block or the process ends, or the object is deleted.

    It leaves no file behind, however the process ends. On a file system without locks, it has no
    effect.

    flag: the flag that selects another directory, for the message.
    shared: exclude only processes that do not ask for a shared lock.

    Raises:
      InputError: another process holds the lock.
      OSError: the directory cannot be opened.
    """

    def __init__(self, directory: Path, flag: str = "--output", shared: bool = False):
        handle = os.open(directory, os.O_RDONLY)
        self._release = weakref.finalize(self, os.close, handle)
        file = os.fstat(handle).st_ino
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            owners = _owners(file)
            self._release()
            if os.getpid() in owners:
                return
            owner = f"process {owners[0]}" if owners else "another process"
            raise InputError(
                f"{directory} is in use by {owner}: wait until it has ended, or choose another "
                f"{flag}"
            ) from None
        except OSError:
            return

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self._release()


def _owners(file: int) -> list[int]:
    """Return the processes that lock the file with this inode number, if the system lists them.

    A line of the list looks like `1: FLOCK ADVISORY WRITE 1234 fe:00:5678 0 EOF`.
    """
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return []
    return [int(lock[4]) for lock in locks if lock[1] == "FLOCK" and lock[5].endswith(f":{file}")]
