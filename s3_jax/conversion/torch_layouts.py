"""Layouts of a checkpoint's pickle and bytes: the zip layout and the older legacy layout."""

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from s3_jax.conversion.errors import RESAVE, MalformedError, printable
from s3_jax.conversion.restricted_pickle import load
from s3_jax.conversion.torch_tensors import Globals, Storage, Tensor, as_array

Bytes = NDArray[np.uint8]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
# Exceptions of the zipfile module for invalid directories.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    ValueError,
    OverflowError,
    struct.error,
    EOFError,
)
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 0x1
_UTF8_NAME = 0x800


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's value, with its tensors as `Tensor` objects, and its bytes.

    layout: "zip" or "legacy".
    value: None, numbers, text, list, tuple, dict, Tensor, and inert stand-ins for anything else.
    record: returns the bytes of a storage after checking their number.
    byte_order: "little" or "big".
    """

    layout: str
    value: Any
    record: Callable[[Storage], Bytes]
    byte_order: str

    def array(self, tensor: Tensor) -> NDArray[Any]:
        """Return a tensor's values; raise MalformedError if their bytes are missing or damaged."""
        return as_array(tensor, self.record(tensor.storage), self.byte_order)


def read_zip(file: BinaryIO, data: Bytes, skip_globals: Collection[str]) -> Checkpoint:
    """Read a checkpoint of torch >= 1.6: an uncompressed zip of data.pkl, data/0, data/1, ...

    Args:
      file: the open file.
      data: the same file's bytes (a memory map).
      skip_globals: names of objects to ignore.

    Raises:
      MalformedError: the file is not a checkpoint, is damaged, or holds objects other than tensors.
    """
    members = _directory(file)
    root = _root(members)
    records = _ZipRecords(data, members, root)
    names = Globals(skip_globals)
    value, _ = load(records.named("data.pkl").data, 0, names.find_global, names.persistent_load)
    names.check(value)
    return Checkpoint("zip", value, records.of_storage, _byte_order(records))


def _directory(file: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    try:
        members = zipfile.ZipFile(file).infolist()
    except _ZIP_ERRORS as error:
        raise MalformedError("is a zip file without a readable directory at its end") from error
    by_name = {member.filename: member for member in members}
    if len(by_name) != len(members):
        raise MalformedError("is a zip file with two members of one name")
    return by_name


def _root(members: Collection[str]) -> str:
    """Return the folder that contains everything; its name is arbitrary."""
    roots = [match[1] for name in members if (match := re.fullmatch(r"([^/]*)/data\.pkl", name))]
    if len(roots) != 1:
        raise MalformedError(
            "is a zip file but not a PyTorch checkpoint: it has "
            + ("no data.pkl" if not roots else f"{len(roots)} data.pkl"),
            "give the file that torch.save wrote",
        )
    if f"{roots[0]}/constants.pkl" in members:
        raise MalformedError("is a TorchScript program (torch.jit.save), not a checkpoint", RESAVE)
    return roots[0]


class _ZipRecords:
    """The members of a zip file as views of its bytes; each checksum is verified once."""

    def __init__(self, data: Bytes, members: dict[str, zipfile.ZipInfo], root: str):
        for member in members.values():
            _data_start(data, member)  # the directory itself has no checksum
        if sum(member.compress_size for member in members.values()) > data.size:
            raise MalformedError("has members that overlap")  # each would be read in full
        self._data = data
        self._members = members
        self._root = root
        self._checked: dict[str, Bytes] = {}

    def __contains__(self, name: str) -> bool:
        return f"{self._root}/{name}" in self._members

    def named(self, name: str) -> Bytes:
        """Return the bytes of a record; its checksum is verified at the first call."""
        if name not in self:
            raise MalformedError(f"has no record {printable(name)}")
        if name not in self._checked:
            self._checked[name] = _member_bytes(self._data, self._members[f"{self._root}/{name}"])
        return self._checked[name]

    def of_storage(self, storage: Storage) -> Bytes:
        """Return the bytes of a storage, after checking their number."""
        raw = self.named(f"data/{storage.key}")
        expected = storage.total * storage.itemsize
        if raw.size != expected:
            raise MalformedError(
                f"has {raw.size:,} bytes in storage {printable(storage.key)}, not {expected:,}"
            )
        return raw


def _member_bytes(data: Bytes, member: zipfile.ZipInfo) -> Bytes:
    """Return a member's bytes after verifying its extent and checksum."""
    shown = printable(member.filename)
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & _ENCRYPTED:
        raise MalformedError(
            f"has compressed or encrypted member {shown}",
            "unpack it and pack it again without compression (zip -0 -r)",
        )
    start = _data_start(data, member)
    end = start + member.file_size
    if member.file_size != member.compress_size or end > data.size:
        raise MalformedError(f"ends inside of member {shown}")
    raw = data[start:end]
    # torch.save can omit the checksums, and then writes zeros.
    if member.CRC not in (0, zlib.crc32(raw.data)):
        raise MalformedError(f"has member {shown} with a wrong checksum")
    return raw


def _data_start(data: Bytes, member: zipfile.ZipInfo) -> int:
    """Return the position of a member's bytes, after its local header of variable length."""
    begin = member.header_offset
    after = begin + _LOCAL_HEADER.size
    if begin < 0 or after > data.size:
        raise MalformedError(f"has no member {printable(member.filename)} where its directory says")
    fields = _LOCAL_HEADER.unpack(data[begin:after].tobytes())
    signature, name_length, extra_length = fields[0], fields[-2], fields[-1]
    encoding = "utf-8" if member.flag_bits & _UTF8_NAME else "cp437"
    name = data[after : after + name_length].tobytes()
    if signature != b"PK\x03\x04" or name != member.orig_filename.encode(encoding):
        raise MalformedError(f"has no member {printable(member.filename)} where its directory says")
    return after + name_length + extra_length


def _byte_order(records: _ZipRecords) -> str:
    if "byteorder" not in records:
        return "little"
    order = records.named("byteorder").tobytes()
    if order not in (b"little", b"big"):
        raise MalformedError(f"has unknown byte order {order[:20]!r}")
    return order.decode()


def read_legacy(data: Bytes, skip_globals: Collection[str]) -> Checkpoint:
    """Read a checkpoint of torch < 1.6: five pickles, then the storages with their lengths.

    Storages are little-endian on every machine. The format has no checksums, so damage to the
    values themselves cannot be detected.

    Args:
      data: the file's bytes.
      skip_globals: names of objects to ignore.

    Raises:
      MalformedError: the file is not a checkpoint, is damaged, or holds objects other than tensors.
    """
    buffer = data.data
    magic, position = _plain_pickle(buffer, 0)
    if magic != _LEGACY_MAGIC:
        raise MalformedError("is a pickle but not a PyTorch checkpoint", RESAVE)
    protocol, position = _plain_pickle(buffer, position)
    if protocol != _LEGACY_PROTOCOL:
        raise MalformedError("is of an unknown version of PyTorch's legacy format", RESAVE)
    _, position = _plain_pickle(buffer, position)  # sizes of C types on the writer's machine
    names = Globals(skip_globals)
    value, position = load(buffer, position, names.find_global, names.persistent_load)
    names.check(value)
    keys, position = _plain_pickle(buffer, position)
    records = dict(_legacy_records(data, position, keys, names.storages))
    return Checkpoint("legacy", value, lambda storage: _find(records, storage.key), "little")


def _find(records: dict[str, Bytes], key: str) -> Bytes:
    if key not in records:
        raise MalformedError(f"lacks the bytes of storage {printable(key)}")
    return records[key]


def _plain_pickle(buffer: memoryview, position: int) -> tuple[Any, int]:
    """Read a pickle without any objects."""
    no_names = Globals()
    value, position = load(buffer, position, no_names.find_global, no_names.persistent_load)
    no_names.check(value)
    return value, position


def _legacy_records(
    data: Bytes, position: int, keys: Any, storages: dict[str, Storage]
) -> Iterator[tuple[str, Bytes]]:
    """Yield storages in the order of `keys`; each is an int64 count followed by its elements."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise MalformedError("has a malformed list of storages")
    for key in keys:
        if key not in storages:
            raise MalformedError(f"lists storage {printable(key)}, which no tensor uses")
        storage = storages[key]
        start = position + 8
        position = start + storage.total * storage.itemsize
        if position > data.size:
            raise MalformedError(f"ends inside of storage {printable(key)}")
        count = int.from_bytes(data[start - 8 : start].tobytes(), "little", signed=True)
        if count != storage.total:
            raise MalformedError(
                f"has {count:,} elements in storage {printable(key)}, not {storage.total:,}"
            )
        yield key, data[start:position]
