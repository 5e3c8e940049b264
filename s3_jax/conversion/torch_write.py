"""Atomic writers of checkpoints that PyTorch and safetensors can load."""

import os
import pathlib
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from s3_jax.conversion.errors import MalformedError, naming, printable
from s3_jax.conversion.torch_tensors import STORAGE_DTYPES, UNTYPED_DTYPES
from s3_jax.files import replacing

_STORAGE_NAMES = {dtype: f"torch\n{name}\n" for name, dtype in STORAGE_DTYPES.items()}
_DTYPE_NAMES = {dtype: name.replace(".", "\n") + "\n" for name, dtype in UNTYPED_DTYPES.items()}
_ROOT = "archive"
_ALIGNMENT = 64
# Sizes fixed by the zip format.
_LOCAL_HEADER_BYTES = 30
_ZIP64_EXTRA_BYTES = 20
_EXTRA_HEADER_BYTES = 4
_CHUNK = 16 * 2**20


def write_torch_file(path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write a state dict in the zip format of torch >= 1.6.

    `torch.load(path, weights_only=True)` returns an OrderedDict with the same keys, order, shapes,
    dtypes and values. Equal tensors give equal bytes. An existing file is replaced only once the
    new one is complete.

    Args:
      path: the file to write, in an existing directory.
      tensors: arrays by key, with any dtype that `read_tensors` returns and any strides.

    Raises:
      TorchFileError: a key is not text, a dtype is unsupported, or the file cannot be written.
    """
    with naming(path, "written"):
        arrays = _checked(tensors)
        with replacing(pathlib.Path(path)) as temporary, temporary.open("wb") as file:
            _write_archive(file, arrays)


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]]) -> None:
    """Write a safetensors file that is marked as holding PyTorch tensors (see `write_torch_file`).

    Raises:
      TorchFileError: a key is not text, a dtype is unsupported, or the file cannot be written.
    """
    with naming(path, "written"):
        arrays = _checked(tensors)
        if "__metadata__" in arrays:
            raise MalformedError("cannot hold a tensor named __metadata__", "rename the tensor")
        dense = {key: np.require(array, requirements=["C"]) for key, array in arrays.items()}
        with replacing(pathlib.Path(path)) as temporary:
            try:
                safetensors.numpy.save_file(dense, temporary, {"format": "pt"})
            except safetensors.SafetensorError as error:  # dtypes are valid, so the disk failed
                raise OSError(str(error)) from error


def _checked(tensors: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Convert tensors to arrays, and raise MalformedError if some of them cannot be written."""
    arrays = {key: np.asarray(value) for key, value in tensors.items()}
    problems = [f"key {key!r} is not text" for key in arrays if not _is_text(key)]
    for key, array in arrays.items():
        dtype = array.dtype.newbyteorder("=")
        if dtype not in _STORAGE_NAMES and dtype not in _DTYPE_NAMES:
            problems.append(f"{printable(str(key))} is of unsupported dtype {array.dtype}")
    if problems:
        raise MalformedError(
            f"cannot hold these tensors: {', '.join(problems)}", "convert them first"
        )
    return {
        key: array.astype(array.dtype.newbyteorder("<"), copy=False)
        for key, array in arrays.items()
    }


def _is_text(key: Any) -> bool:
    try:
        return isinstance(key, str) and bool(key.encode())
    except UnicodeEncodeError:
        return False


def _write_archive(file: BinaryIO, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the members that torch.load expects, in the order of torch.save."""
    with zipfile.ZipFile(file, "w") as archive:
        _write_record(archive, file, "data.pkl", np.frombuffer(_pickle(arrays), np.uint8))
        _write_record(archive, file, "byteorder", np.frombuffer(b"little", np.uint8))
        for index, array in enumerate(arrays.values()):
            _write_record(archive, file, f"data/{index}", array)
        _write_record(archive, file, "version", np.frombuffer(b"3\n", np.uint8))


def _write_record(archive: zipfile.ZipFile, file: BinaryIO, name: str, array: NDArray[Any]) -> None:
    """Add an uncompressed member whose bytes start at a multiple of 64, as PyTorch requires."""
    member = zipfile.ZipInfo(f"{_ROOT}/{name}")
    member.file_size = array.nbytes
    large = array.nbytes * 1.05 > zipfile.ZIP64_LIMIT
    header = _LOCAL_HEADER_BYTES + len(member.filename) + (_ZIP64_EXTRA_BYTES if large else 0)
    begin = file.tell() + header + _EXTRA_HEADER_BYTES
    padding = -begin % _ALIGNMENT
    member.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    with archive.open(member, "w", force_zip64=large) as record:
        _write_values(record.write, array)


def _write_values(write: Callable[[memoryview], object], array: NDArray[Any]) -> None:
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _CHUNK):
        write(flat[start : start + _CHUNK].data)


def _pickle(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the pickle (protocol 2) of an OrderedDict of tensors; storage i holds tensor i."""
    items = b"".join(
        _text(key) + _tensor(str(index), array) for index, (key, array) in enumerate(arrays.items())
    )
    return b"\x80\x02" + _EMPTY_ORDERED_DICT + b"(" + items + b"u."


_EMPTY_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def _tensor(storage_key: str, array: NDArray[Any]) -> bytes:
    """Return a call of the tensor builder: the storage's persistent id, offset, shape, strides."""
    untyped = array.dtype in _DTYPE_NAMES
    storage_name = "torch.storage\nUntypedStorage\n" if untyped else _STORAGE_NAMES[array.dtype]
    storage = (
        *(b"(", _text("storage"), b"c" + storage_name.encode(), _text(storage_key)),
        *(_text("cpu"), _integer(array.nbytes if untyped else array.size), b"tQ"),
    )
    strides = _contiguous_strides(array.shape)
    fields = (b"K\x00", _integers(array.shape), _integers(strides), b"\x89", _EMPTY_ORDERED_DICT)
    extra = b"c" + _DTYPE_NAMES[array.dtype].encode() if untyped else b""
    version = b"v3" if untyped else b"v2"
    function = b"ctorch._utils\n_rebuild_tensor_" + version + b"\n"
    return b"".join((function, b"(", *storage, *fields, extra, b"tR"))


def _contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * max(size, 1))
    return tuple(strides[: len(shape)])


def _text(text: str) -> bytes:
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _integer(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def _integers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"
