"""Errors in checkpoint files; their one-line messages name the file, the problem and the fix."""

import contextlib
import os
from collections.abc import Iterator

DAMAGED = "the file is damaged or incomplete: download or copy it again"
RESAVE = "re-save only the tensors, with torch.save(model.state_dict(), path)"


class ConversionError(ValueError):
    """Error for a state dict that does not match the network; the message lists every problem."""


class TorchFileError(ValueError):
    """Error for an unreadable or unwritable checkpoint file; the message names file and fix."""


class MalformedError(Exception):
    """Problem found inside a file by code that does not know the file's name.

    `naming` always turns it into a `TorchFileError` before it reaches a caller.
    """

    def __init__(self, problem: str, fix: str = DAMAGED):
        super().__init__(problem)
        self.problem = problem
        self.fix = fix


@contextlib.contextmanager
def naming(path: str | os.PathLike[str], action: str) -> Iterator[None]:
    """Add the file's name to problems that occur inside the block.

    Args:
      path: the file that the block works on.
      action: past participle that completes "cannot be ...": "read" or "written".

    Raises:
      TorchFileError: for every `MalformedError` and `OSError` raised inside.
    """
    try:
        yield
    except MalformedError as error:
        raise TorchFileError(f"{os.fspath(path)}: {error.problem}; {error.fix}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise TorchFileError(
            f"{os.fspath(path)}: cannot be {action} ({reason}); "
            "check the path, its permissions and the free space"
        ) from error


def printable(text: str, limit: int = 100) -> str:
    """Return text from a file without control characters, and of at most `limit` characters."""
    shown = text if text.isprintable() else ascii(text)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
