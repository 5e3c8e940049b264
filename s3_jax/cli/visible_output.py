"""Command output with escaped control characters, which names in its input may contain."""

import contextlib
import logging as python_logging
import sys
from collections.abc import Iterator
from typing import Any

from absl import logging

from s3_jax.errors import visible


@contextlib.contextmanager
def visible_output() -> Iterator[None]:
    """Escape control characters in standard output and in log lines."""
    handler, form, before = logging.get_absl_handler(), _Visible(), sys.stdout
    handler.addFilter(form)
    sys.stdout = _Output(before)
    try:
        yield
    finally:
        sys.stdout = before
        handler.removeFilter(form)


class _Output:
    """A stream that escapes control characters and otherwise behaves like the given one."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write escaped text, as `TextIO.write` does."""
        self._stream.write(visible(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Visible(python_logging.Filter):
    def filter(self, record: python_logging.LogRecord) -> bool:
        record.msg, record.args = visible(record.getMessage()), None
        return True
