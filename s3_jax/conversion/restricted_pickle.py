"""Pickle interpreter that builds plain data and never runs code from a file.

Python's own unpickler imports and calls what a file names. Even with a restricted `find_class`, it
hashes and allocates whatever the file asks for. This interpreter is a small stack machine. It knows
the opcodes that pickle protocols 2 to 5 write for data, represents containers as list, tuple and
dict, and passes every global name and persistent id to its caller, which answers with inert values.
Python's `pickletools` splits the bytes into opcodes and their arguments. Work and memory are
bounded by budgets (`s3_jax.limits`).
"""

import pickle  # only for its highest protocol
import pickletools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from s3_jax.conversion.errors import RESAVE, MalformedError
from s3_jax.limits import limit, remedy

_NUMBER_KEYS_OF_A_CALL = 100
_MAX_NAME_LENGTH = 512
_MAX_INTEGER_BYTES = 64
_KEY_TYPES = (str, int, float, bool, bytes, type(None))
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}


class Inert:
    """Stand-in for an object; attributes that a pickle sets on it are dropped."""


@dataclass(frozen=True)
class Opaque(Inert):
    """An ignored object or class; operations on it have no effect."""

    name: str


@dataclass(frozen=True)
class Builder:
    """A global that may be called; `build` receives the untrusted argument tuple."""

    build: Callable[[tuple[Any, ...]], Any]


class Reader:
    """The part of a file's interface that `pickletools` needs, for a buffer."""

    def __init__(self, data: memoryview, position: int = 0):
        self._data = data
        self.position = position

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes; raise MalformedError if there are fewer."""
        end = self.position + count
        if count < 0 or end > len(self._data):
            raise MalformedError(f"ends inside a pickle (at byte {len(self._data):,})")
        self.position, start = end, self.position
        return bytes(self._data[start:end])

    def readline(self) -> bytes:
        """Return the bytes up to and including the next line feed."""
        window = bytes(self._data[self.position : self.position + _MAX_NAME_LENGTH])
        length = window.find(b"\n") + 1
        if not length:
            raise MalformedError("has a pickle with an endless name")
        self.position += length
        return window[:length]

    def argument(self, opcode: pickletools.OpcodeInfo) -> Any:
        """Return an opcode's argument, or None if it takes none."""
        try:
            if opcode.name == "GLOBAL":  # pickletools would parse names as quoted ASCII
                return (self.readline()[:-1] + b"." + self.readline()[:-1]).decode()
            return opcode.arg.reader(self) if opcode.arg else None  # type: ignore[arg-type]
        except UnicodeDecodeError as error:
            raise MalformedError("has a pickle with text that is not UTF-8") from error
        except ValueError as error:
            raise MalformedError(f"ends inside a pickle (at byte {len(self._data):,})") from error


class _Machine:
    """Stack machine: its stack, the marks on the stack, and the memo."""

    def __init__(self, find_global: Callable[[str], Any], persistent_load: Callable[[Any], Any]):
        self.find_global = find_global
        self.persistent_load = persistent_load
        self.stack: list[Any] = []
        self.marks: list[int] = []
        # Keyed by the number's text, because a file cannot make string hashes collide.
        self.memo: dict[str, Any] = {}
        # An operation makes at most one small object, so this also bounds memory.
        self._operations = self._allowed = int(limit("pickle_operations"))
        self._number_keys = limit("pickle_number_keys")

    def charge(self, operations: int) -> None:
        """Count operations, and raise MalformedError if the file exceeds its budget."""
        self._operations -= operations
        if self._operations < 0:
            raise MalformedError(
                f"has a pickle of more than {self._allowed:,} operations",
                f"{RESAVE}; {remedy('pickle_operations', 10.0 * self._allowed)}",
            )

    def charge_number_keys(self, count: int) -> None:
        """Count dictionary keys that are not text, whose hashes a file can make collide."""
        self._number_keys -= count
        if self._number_keys < 0:
            raise _too_many_number_keys()

    def push(self, value: Any) -> None:
        """Push a value on the stack."""
        self.stack.append(value)

    def _require(self, count: int) -> None:
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - floor < count:
            raise MalformedError("has a pickle that takes more values than it made")

    def top(self) -> Any:
        """Return the last value and leave it on the stack."""
        self._require(1)
        return self.stack[-1]

    def pop(self) -> Any:
        """Remove the last value and return it."""
        self._require(1)
        return self.stack.pop()

    def pop_many(self, count: int) -> tuple[Any, ...]:
        """Remove the last values, and return them in the order in which they were pushed."""
        self._require(count)
        start = len(self.stack) - count
        values = tuple(self.stack[start:])
        del self.stack[start:]
        return values

    def pop_to_mark(self) -> tuple[Any, ...]:
        """Remove the last mark and all values after it, and return the values."""
        if not self.marks:
            raise MalformedError("has a pickle without an expected mark")
        start = self.marks.pop()
        values = tuple(self.stack[start:])
        del self.stack[start:]
        return values


# A handler takes the opcode's argument, or None if it has none; its result is ignored.
Handler = Callable[[_Machine, Any], object]


def load(
    data: memoryview,
    start: int,
    find_global: Callable[[str], Any],
    persistent_load: Callable[[Any], Any],
) -> tuple[Any, int]:
    """Interpret the pickle that begins at byte `start`.

    Args:
      data: the whole file or record, as bytes.
      start: position of the pickle.
      find_global: returns the value for "module.name": a `Builder` if it may be called, otherwise
        an `Inert` value. It raises `MalformedError` to refuse a name.
      persistent_load: returns the value for a persistent id.

    Returns:
      The value, which consists of None, bool, int, float, str, bytes, list (also for sets), tuple,
      dict and the results of the two functions; and the position after the pickle.

    Raises:
      MalformedError: the pickle is truncated, inconsistent or too large, or uses other opcodes.
    """
    reader = Reader(data, start)
    machine = _Machine(find_global, persistent_load)
    while True:
        machine.charge(1)
        code = reader.read(1)[0]
        opcode = _OPCODES.get(code)
        if opcode and opcode.name == "STOP":
            return machine.pop(), reader.position
        if opcode is None or opcode.name not in _HANDLERS:
            raise MalformedError(
                f"has pickle opcode {code:#04x} at byte {reader.position - 1:,}, "
                "which torch.save never writes"
            )
        _HANDLERS[opcode.name](machine, reader.argument(opcode))


def put_pairs(target: dict[Any, Any], pairs: Sequence[Sequence[Any]]) -> None:
    """Add the pairs passed in one call to a dictionary; errors are those of `_put`.

    A file can repeat a call at the cost of a few bytes, so each may have only a few keys that are
    not text.
    """
    if _number_keys(key for key, _ in pairs) > _NUMBER_KEYS_OF_A_CALL:
        raise _too_many_number_keys()
    _put(target, pairs)


def _number_keys(keys: Iterable[Any]) -> int:
    return sum(type(key) is not str for key in keys)


def _too_many_number_keys() -> MalformedError:
    most = limit("pickle_number_keys")
    return MalformedError(
        f"has dictionaries with more than {most:,.0f} keys that are not text, or more than "
        f"{_NUMBER_KEYS_OF_A_CALL} in one call",
        f"{RESAVE}; {remedy('pickle_number_keys', 10 * most)}",
    )


def _put(target: dict[Any, Any], items: Iterable[Sequence[Any]]) -> None:
    """Add items to a dictionary, and raise MalformedError for keys that are not plain scalars.

    Tuples are refused too, because hashing a deeply nested one overflows the interpreter's C stack.
    """
    for key, value in items:
        if type(key) not in _KEY_TYPES:
            raise MalformedError(f"has a dictionary key of type {type(key).__name__}", RESAVE)
        target[key] = value


def _text(machine: _Machine, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise MalformedError("has a pickle with text that is not UTF-8") from error
    machine.push(text)


def _integer(machine: _Machine, value: int) -> None:
    size = (value.bit_length() + 7) // 8
    if size > _MAX_INTEGER_BYTES:
        raise MalformedError(f"has an integer of {size:,} bytes")
    machine.push(value)


def _protocol(machine: _Machine, version: int) -> None:
    if version > pickle.HIGHEST_PROTOCOL:
        raise MalformedError(f"has a pickle of protocol {version}, which does not exist")


def _memoize(machine: _Machine, index: int | None) -> None:
    machine.memo[str(len(machine.memo) if index is None else index)] = machine.top()


def _recall(machine: _Machine, index: int) -> None:
    if str(index) not in machine.memo:
        raise MalformedError(f"has a pickle that recalls value {index}, which it never stored")
    machine.push(machine.memo[str(index)])


def _append(machine: _Machine, values: Iterable[Any]) -> None:
    target = machine.top()
    if isinstance(target, list):
        target.extend(values)
    elif not isinstance(target, Opaque):
        raise MalformedError(f"has a pickle that appends to a {type(target).__name__}")


def _set_items(machine: _Machine, flat: tuple[Any, ...]) -> None:
    target = machine.top()
    if len(flat) % 2:
        raise MalformedError("has a pickle with a key without a value")
    if isinstance(target, dict):
        machine.charge_number_keys(_number_keys(flat[::2]))
        _put(target, zip(flat[::2], flat[1::2], strict=True))
    elif not isinstance(target, Opaque):
        raise MalformedError(f"has a pickle that sets items of a {type(target).__name__}")


def _stack_global(machine: _Machine, _: None) -> None:
    module, name = machine.pop_many(2)
    if not (isinstance(module, str) and isinstance(name, str)):
        raise MalformedError("has a pickle whose global has no name")
    if len(module) + len(name) > _MAX_NAME_LENGTH:
        raise MalformedError("has a pickle with an endless name")
    machine.push(machine.find_global(f"{module}.{name}"))


def _call(machine: _Machine, function: Any, arguments: Any) -> None:
    if not isinstance(arguments, tuple):
        raise MalformedError("has a pickle that calls without an argument list")
    if isinstance(function, Opaque):
        machine.push(function)
    elif isinstance(function, Builder):
        # A builder may copy its arguments, which the file can pass again and again.
        machine.charge(sum(len(x) for x in arguments if isinstance(x, list | tuple)))
        machine.push(function.build(arguments))
    else:
        raise MalformedError(f"has a pickle that calls a {type(function).__name__}")


def _build(machine: _Machine, _: None) -> None:
    """Drop the attributes that a pickle sets on an object, since no value here has any."""
    machine.pop()
    target = machine.top()
    if not isinstance(target, (Inert, dict)):
        raise MalformedError(f"has a pickle that sets attributes of a {type(target).__name__}")


def _each(names: str, handler: Handler) -> dict[str, Handler]:
    return dict.fromkeys(names.split(), handler)


_HANDLERS: dict[str, Handler] = {
    "PROTO": _protocol,
    "FRAME": lambda machine, size: None,
    # Values
    **_each("BININT BININT1 BININT2 BINFLOAT", _Machine.push),
    **_each("SHORT_BINSTRING BINSTRING SHORT_BINBYTES BINBYTES BINBYTES8", _Machine.push),
    **_each("SHORT_BINUNICODE BINUNICODE BINUNICODE8", _text),
    **_each("LONG1 LONG4", _integer),
    "BYTEARRAY8": lambda machine, value: machine.push(bytes(value)),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    # Containers
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(machine.pop_many(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.pop_many(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.pop_many(3)),
    "TUPLE": lambda machine, _: machine.push(machine.pop_to_mark()),
    "FROZENSET": lambda machine, _: machine.push(list(machine.pop_to_mark())),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_SET": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "APPEND": lambda machine, _: _append(machine, machine.pop_many(1)),
    "APPENDS": lambda machine, _: _append(machine, machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: _append(machine, machine.pop_to_mark()),
    "SETITEM": lambda machine, _: _set_items(machine, machine.pop_many(2)),
    "SETITEMS": lambda machine, _: _set_items(machine, machine.pop_to_mark()),
    # Stack and memo
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    **_each("BINPUT LONG_BINPUT MEMOIZE", _memoize),
    **_each("BINGET LONG_BINGET", _recall),
    # Objects
    "GLOBAL": lambda machine, name: machine.push(machine.find_global(name)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": lambda machine, _: _call(machine, *machine.pop_many(2)),
    "NEWOBJ": lambda machine, _: _call(machine, *machine.pop_many(2)),
    "NEWOBJ_EX": lambda machine, _: _call(machine, *machine.pop_many(3)[:2]),
    "BUILD": _build,
    "BINPERSID": lambda machine, _: machine.push(machine.persistent_load(machine.pop())),
}
