"""Messages from the page; each is validated completely before it has any effect.

A message is a JSON object with a `type`. Messages that change something have `seq`, a number that
the page increments, so a message that arrives twice is executed only once.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from s3_jax.errors import InputError

LARGEST = 1 << 20  # bytes of one message
MOST_POINTS = 20_000  # of one stroke
LONGEST_NAME = 80
TOOLS = ("brush", "erase", "polygon", "cut", "box", "click", "fill", "clear")
DIRECTIONS = ("forward", "backward", "both")
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_LAYOUT = re.compile(r"[a-z_]{1,32}")
_PAGE = re.compile(r"[A-Za-z0-9-]{8,64}")


@dataclasses.dataclass(frozen=True)
class Message:
    """A validated message.

    seq: the message's number; 0 for messages that change nothing.
    values: values of the fields, validated according to `_FIELDS`.
    """

    kind: str
    seq: int
    values: Mapping[str, Any]


def parse(text: str) -> Message:
    """Parse a message from the page.

    Raises:
      InputError: it is too large, is not JSON, is of an unknown type, or has an invalid field.
    """
    if len(text) > LARGEST:
        raise InputError(f"a message has {len(text)} characters; {LARGEST} are allowed")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("a message is not JSON") from error
    if not isinstance(content, dict) or content.get("type") not in _FIELDS:
        raise InputError(f"a message must have one of the types {', '.join(_FIELDS)}")
    kind = content["type"]
    fields = _FIELDS[kind]
    unknown = sorted(set(content) - set(fields) - {"type"})
    if unknown:
        raise InputError(f"a message of type {kind} has no field {unknown[0][:40]!r}")
    values = {name: _checked(kind, name, check, content) for name, check in fields.items()}
    return Message(kind, values.pop("seq", 0), values)


def _checked(kind: str, name: str, check: Callable[[Any], Any], content: dict[str, Any]) -> Any:
    if name not in content:
        raise InputError(f"a message of type {kind} needs the field {name!r}")
    try:
        return check(content[name])
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"the field {name!r} of a message of type {kind} {error}") from error


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ValueError(text)


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        """Accept whole numbers in the range."""
        whole = type(value) is int and least <= value <= most
        _require(whole, f"must be a whole number from {least} to {most}")
        return int(value)

    return check


def _number(value: Any) -> float:
    within = type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e6
    _require(within, "must be a number of ordinary size")
    return float(value)


def _size(value: Any) -> float:
    _require(0.5 <= _number(value) <= 4096, "must be 0.5 to 4096 pixels")
    return float(value)


def _points(value: Any) -> list[tuple[float, float]]:
    listed = isinstance(value, list) and len(value) <= MOST_POINTS
    _require(listed, f"must be a list of at most {MOST_POINTS} points")
    pairs = all(isinstance(point, list) and len(point) == 2 for point in value)
    _require(pairs, "must hold points of two numbers each")
    return [(_number(x), _number(y)) for x, y in value]


def _one_of(*names: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        """Accept one of the names."""
        _require(isinstance(value, str) and value in names, f"must be one of {', '.join(names)}")
        return str(value)

    return check


def _name(value: Any) -> str:
    held = isinstance(value, str) and 0 < len(value.strip()) <= LONGEST_NAME
    _require(held and value.isprintable(), f"must be 1 to {LONGEST_NAME} printable characters")
    return str(value).strip()


def _matching(pattern: re.Pattern[str], text: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        """Accept text that matches the pattern."""
        _require(isinstance(value, str) and bool(pattern.fullmatch(value)), text)
        return str(value)

    return check


_FRAME = _whole(0, 10**9)
_SEQ = _whole(1, 2**53)
_OBJECT = _whole(1, 2**24 - 1)
_FIELDS: dict[str, dict[str, Callable[[Any], Any]]] = {
    "hello": {"page": _matching(_PAGE, "must be 8 to 64 letters, digits or hyphens")},
    "as": {"page": _matching(_PAGE, "must be 8 to 64 letters, digits or hyphens")},
    "ping": {},
    "look": {"frame": _FRAME},
    "edit": {
        "seq": _SEQ,
        "frame": _FRAME,
        "object": _OBJECT,
        "tool": _one_of(*TOOLS),
        "points": _points,
        "size": _size,
        "label": _whole(0, 1),
    },
    "object": {
        "seq": _SEQ,
        "object": _OBJECT,
        "name": _name,
        "colour": _matching(_COLOUR, "must be a colour like #3fa7ff"),
    },
    "remove": {"seq": _SEQ, "object": _OBJECT},
    "undo": {"seq": _SEQ},
    "redo": {"seq": _SEQ},
    "propagate": {"first": _FRAME, "last": _FRAME, "direction": _one_of(*DIRECTIONS)},
    "update": {},
    "stop": {},
    "export": {"format": _matching(_LAYOUT, "must be the name of a layout")},
}
