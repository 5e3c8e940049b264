"""Safe reading of JSON files from untrusted sources."""

import errno
import json
from pathlib import Path
from typing import Any

from s3_jax.limits import limit, require_within


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; a byte-order mark is ignored.

    Raises:
      InputError: the file exceeds the size budget.
      OSError: the file cannot be read.
      ValueError: it is not valid JSON, or nested deeper than the budget.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    require_within("json_megabytes", path.stat().st_size / 1e6, f"{path} is a large JSON file")
    return parse_json(path.read_text("utf-8-sig"))


def parse_json(text: str) -> Any:
    """Return the content of a JSON text.

    Raises:
      ValueError: it is not valid JSON, or nested deeper than the budget.
    """
    _refuse_depth(text)
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_depth(text: str) -> None:
    depth, most, quoted, escaped = 0, limit("json_depth"), False, False
    if text.count("[") + text.count("{") <= most:
        return
    for character in text:
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in "[{":
            depth += 1
            if depth > most:
                raise ValueError(f"brackets are nested more than {most:g} deep")
        elif character in "]}":
            depth -= 1


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
