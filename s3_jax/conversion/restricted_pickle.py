"""A pickle interpreter that builds plain data and never runs code.

Python's own unpickler imports and calls what a file names; even behind a restricted
`find_class` it hashes, sizes and allocates whatever the file says. This one is a small stack
machine: it knows the opcodes that pickle protocols 2 to 5 write for data, keeps containers as
list, tuple and dict, and hands every global name and persistent id to its caller, who answers
with inert values. Work and memory are bounded by the number of bytes in the file.
"""

import pickle  # for the names of the opcodes only
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from s3_jax.conversion.errors import RESAVE, MalformedError

# A checkpoint needs about 30 operations a tensor. An operation makes at most one small object,
# so that this also bounds the memory a hostile file can take.
MAX_OPERATIONS = 10_000_000
_MAX_NAME_LENGTH = 512
_MAX_INTEGER_BYTES = 64
_KEY_TYPES = (str, int, float, bool, bytes, type(None))


class Inert:
    """A value that stands for an object: attributes that a pickle sets on it are dropped."""


@dataclass(frozen=True)
class Opaque(Inert):
    """An object (or its class) that is passed over: whatever is done to it has no effect."""

    name: str


@dataclass(frozen=True)
class Builder:
    """A global that may be called; `build` takes the untrusted argument tuple."""

    build: Callable[[tuple[Any, ...]], Any]


class Reader:
    """Bounds-checked reading from a buffer, front to back."""

    def __init__(self, data: memoryview, position: int = 0):
        self._data = data
        self.position = position

    def take(self, count: int) -> memoryview:
        """The next `count` bytes, without copying; raises MalformedError when there are fewer."""
        end = self.position + count
        if count < 0 or end > len(self._data):
            raise MalformedError(f"ends inside a pickle (at byte {len(self._data):,})")
        self.position, start = end, self.position
        return self._data[start:end]

    def number(self, layout: str) -> Any:
        """One number in `struct` layout."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def line(self) -> str:
        """Text up to the next line feed, which is consumed."""
        window = bytes(self._data[self.position : self.position + _MAX_NAME_LENGTH])
        length = window.find(b"\n")
        if length < 0:
            raise MalformedError("has a pickle with an endless name")
        self.position += length + 1
        return _text(window[:length])


class _Machine:
    """The stack machine: its stack, the marks on the stack, and the memo."""

    def __init__(
        self,
        reader: Reader,
        find_global: Callable[[str], Any],
        persistent_load: Callable[[Any], Any],
    ):
        self.reader = reader
        self.find_global = find_global
        self.persistent_load = persistent_load
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def _require(self, count: int) -> None:
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) - floor < count:
            raise MalformedError("has a pickle that takes more values than it made")

    def top(self) -> Any:
        self._require(1)
        return self.stack[-1]

    def pop(self) -> Any:
        self._require(1)
        return self.stack.pop()

    def pop_many(self, count: int) -> tuple[Any, ...]:
        self._require(count)
        start = len(self.stack) - count
        values = tuple(self.stack[start:])
        del self.stack[start:]
        return values

    def pop_to_mark(self) -> tuple[Any, ...]:
        if not self.marks:
            raise MalformedError("has a pickle without an expected mark")
        start = self.marks.pop()
        values = tuple(self.stack[start:])
        del self.stack[start:]
        return values


Handler = Callable[[_Machine], object]  # what it returns is dropped


def load(
    data: memoryview,
    start: int,
    find_global: Callable[[str], Any],
    persistent_load: Callable[[Any], Any],
) -> tuple[Any, int]:
    """Interprets the pickle that begins at byte `start`.

    Args:
      data: the whole file or record, as bytes.
      start: where the pickle begins.
      find_global: what "module.name" stands for: a `Builder` if it may be called, an `Inert`
        value otherwise. To refuse a name, raise `MalformedError`.
      persistent_load: the value that a persistent id stands for.

    Returns:
      The value, made of None, bool, int, float, str, bytes, list (for sets too), tuple, dict and
      what the two functions returned; and the position after the pickle.

    Raises:
      MalformedError: the pickle is cut short, inconsistent, too large or uses other opcodes.
    """
    machine = _Machine(Reader(data, start), find_global, persistent_load)
    stop = pickle.STOP[0]
    for _ in range(MAX_OPERATIONS):
        code = machine.reader.take(1)[0]
        if code == stop:
            return machine.pop(), machine.reader.position
        handler = _HANDLERS.get(code)
        if handler is None:
            raise MalformedError(
                f"has pickle opcode {code:#04x} at byte {machine.reader.position - 1:,}, "
                "which torch.save never writes"
            )
        handler(machine)
    raise MalformedError(f"has a pickle of more than {MAX_OPERATIONS:,} operations", RESAVE)


def put_items(target: dict[Any, Any], items: Iterable[Sequence[Any]]) -> None:
    """Adds items to a dictionary; raises MalformedError for keys that are not plain scalars.

    Tuples are refused too: hashing a deeply nested one overflows the interpreter's C stack.
    """
    for key, value in items:
        if type(key) not in _KEY_TYPES:
            raise MalformedError(f"has a dictionary key of type {type(key).__name__}", RESAVE)
        target[key] = value


def _text(raw: bytes | memoryview) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("has a pickle with text that is not UTF-8") from error


def _python2_text(raw: memoryview) -> str:
    return str(raw, "latin-1")


def _integer(raw: memoryview) -> int:
    if len(raw) > _MAX_INTEGER_BYTES:
        raise MalformedError(f"has an integer of {len(raw):,} bytes")
    return int.from_bytes(raw, "little", signed=True)


def _number(layout: str) -> Handler:
    return lambda machine: machine.push(machine.reader.number(layout))


def _sized(layout: str, decode: Callable[[memoryview], Any]) -> Handler:
    """A length in `layout`, then that many bytes."""

    def handle(machine: _Machine) -> None:
        reader = machine.reader
        machine.push(decode(reader.take(reader.number(layout))))

    return handle


def _constant(value: Any) -> Handler:
    return lambda machine: machine.push(value)


def _fresh(make: Callable[[], Any]) -> Handler:
    return lambda machine: machine.push(make())


def _tuple_of(count: int) -> Handler:
    return lambda machine: machine.push(machine.pop_many(count))


def _protocol(machine: _Machine) -> None:
    version = machine.reader.number("<B")
    if version > pickle.HIGHEST_PROTOCOL:
        raise MalformedError(f"has a pickle of protocol {version}, which does not exist")


def _memoize(layout: str) -> Handler:
    def handle(machine: _Machine) -> None:
        machine.memo[machine.reader.number(layout)] = machine.top()

    return handle


def _recall(layout: str) -> Handler:
    def handle(machine: _Machine) -> None:
        index = machine.reader.number(layout)
        if index not in machine.memo:
            raise MalformedError(f"has a pickle that recalls value {index}, which it never stored")
        machine.push(machine.memo[index])

    return handle


def _memoize_next(machine: _Machine) -> None:
    machine.memo[len(machine.memo)] = machine.top()


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
        put_items(target, zip(flat[::2], flat[1::2], strict=True))
    elif not isinstance(target, Opaque):
        raise MalformedError(f"has a pickle that sets items of a {type(target).__name__}")


def _append_one(machine: _Machine) -> None:
    (value,) = machine.pop_many(1)
    _append(machine, (value,))


def _global(machine: _Machine) -> None:
    module, name = machine.reader.line(), machine.reader.line()
    machine.push(machine.find_global(f"{module}.{name}"))


def _stack_global(machine: _Machine) -> None:
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
        machine.push(function.build(arguments))
    else:
        raise MalformedError(f"has a pickle that calls a {type(function).__name__}")


def _reduce(machine: _Machine) -> None:
    function, arguments = machine.pop_many(2)
    _call(machine, function, arguments)


def _new_object_with_keywords(machine: _Machine) -> None:
    function, arguments, _ = machine.pop_many(3)
    _call(machine, function, arguments)


def _build(machine: _Machine) -> None:
    """Attributes of an object: nothing here has any, so that they are dropped."""
    machine.pop()
    target = machine.top()
    if not isinstance(target, (Inert, dict)):
        raise MalformedError(f"has a pickle that sets attributes of a {type(target).__name__}")


def _persistent_id(machine: _Machine) -> None:
    machine.push(machine.persistent_load(machine.pop()))


_NAMED_HANDLERS: dict[bytes, Handler] = {
    pickle.PROTO: _protocol,
    pickle.FRAME: lambda machine: machine.reader.number("<Q"),
    # Values
    pickle.NONE: _constant(None),
    pickle.NEWTRUE: _constant(True),
    pickle.NEWFALSE: _constant(False),
    pickle.BININT: _number("<i"),
    pickle.BININT1: _number("<B"),
    pickle.BININT2: _number("<H"),
    pickle.BINFLOAT: _number(">d"),
    pickle.LONG1: _sized("<B", _integer),
    pickle.LONG4: _sized("<i", _integer),
    pickle.SHORT_BINUNICODE: _sized("<B", _text),
    pickle.BINUNICODE: _sized("<I", _text),
    pickle.BINUNICODE8: _sized("<Q", _text),
    pickle.SHORT_BINSTRING: _sized("<B", _python2_text),
    pickle.BINSTRING: _sized("<i", _python2_text),
    pickle.SHORT_BINBYTES: _sized("<B", bytes),
    pickle.BINBYTES: _sized("<I", bytes),
    pickle.BINBYTES8: _sized("<Q", bytes),
    pickle.BYTEARRAY8: _sized("<Q", bytes),
    # Containers
    pickle.EMPTY_TUPLE: _constant(()),
    pickle.TUPLE1: _tuple_of(1),
    pickle.TUPLE2: _tuple_of(2),
    pickle.TUPLE3: _tuple_of(3),
    pickle.TUPLE: lambda machine: machine.push(machine.pop_to_mark()),
    pickle.FROZENSET: lambda machine: machine.push(list(machine.pop_to_mark())),
    pickle.EMPTY_LIST: _fresh(list),
    pickle.EMPTY_SET: _fresh(list),
    pickle.EMPTY_DICT: _fresh(dict),
    pickle.APPEND: _append_one,
    pickle.APPENDS: lambda machine: _append(machine, machine.pop_to_mark()),
    pickle.ADDITEMS: lambda machine: _append(machine, machine.pop_to_mark()),
    pickle.SETITEM: lambda machine: _set_items(machine, machine.pop_many(2)),
    pickle.SETITEMS: lambda machine: _set_items(machine, machine.pop_to_mark()),
    # Stack and memo
    pickle.MARK: lambda machine: machine.marks.append(len(machine.stack)),
    pickle.POP: lambda machine: machine.pop(),
    pickle.POP_MARK: lambda machine: machine.pop_to_mark(),
    pickle.BINPUT: _memoize("<B"),
    pickle.LONG_BINPUT: _memoize("<I"),
    pickle.MEMOIZE: _memoize_next,
    pickle.BINGET: _recall("<B"),
    pickle.LONG_BINGET: _recall("<I"),
    # Objects
    pickle.GLOBAL: _global,
    pickle.STACK_GLOBAL: _stack_global,
    pickle.REDUCE: _reduce,
    pickle.NEWOBJ: _reduce,
    pickle.NEWOBJ_EX: _new_object_with_keywords,
    pickle.BUILD: _build,
    pickle.BINPERSID: _persistent_id,
}
_HANDLERS = {code[0]: handler for code, handler in _NAMED_HANDLERS.items()}
