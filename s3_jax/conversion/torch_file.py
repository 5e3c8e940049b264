"""Reader of checkpoint files that needs no PyTorch and runs nothing stored in them.

    file -> layout (zip, legacy, safetensors) -> pickle -> tree of `Tensor` -> arrays by key

Arrays are views of the memory-mapped file wherever possible, so unused ones are not loaded. Do not
modify a file in place while its arrays are in use (replacing it is fine).
"""

import mmap
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from s3_jax.conversion.errors import RESAVE, MalformedError, TorchFileError, naming, printable
from s3_jax.conversion.restricted_pickle import Opaque
from s3_jax.conversion.safetensors_file import read_safetensors
from s3_jax.conversion.torch_layouts import Checkpoint, read_legacy, read_zip
from s3_jax.conversion.torch_tensors import Tensor
from s3_jax.conversion.torch_write import write_safetensors, write_torch_file

__all__ = [
    "Contents",
    "TorchFileError",
    "describe",
    "read_contents",
    "read_tensors",
    "write_safetensors",
    "write_torch_file",
]

Arrays = dict[str, NDArray[Any]]

# Bounds on the expansion of a small file: containers and storages can be shared, so a few bytes
# may name very many tensors, or one of any size.
_MAX_TENSORS = 100_000
_MAX_DEPTH = 64
_MAX_KEY_LENGTH = 1024
_MAX_SHARING = 16
_FREE_BYTES = 64 * 2**20

_FETCH_AGAIN = "download the file itself"
# Files that are often mistaken for checkpoints: (offset, signature, what it is, fix).
_OTHER_FILES = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the file", "run git lfs pull"),
    (0, b"<!DOCTYPE", "is a web page, not a checkpoint", _FETCH_AGAIN),
    (0, b"<!doctype", "is a web page, not a checkpoint", _FETCH_AGAIN),
    (0, b"<html", "is a web page, not a checkpoint", _FETCH_AGAIN),
    (0, b"\x1f\x8b", "is compressed with gzip", "unpack it with gunzip"),
    (257, b"ustar", "is a tar file, the checkpoint format of torch < 0.1.10", RESAVE),
)


@dataclass(frozen=True)
class Contents:
    """Contents of a checkpoint file.

    layout: "zip", "legacy" or "safetensors".
    tensors: arrays by key. The keys of nested dictionaries and the indices of nested lists are
      joined with ".". The key of a single bare tensor is "tensor". Arrays may be read-only, and may
      share memory with the file and each other.
    skipped: everything else, as key -> kind, with one entry for each largest part without tensors.
    """

    layout: str
    tensors: Arrays
    skipped: dict[str, str] = field(default_factory=dict)


def read_tensors(path: str | os.PathLike[str], skip_globals: Collection[str] = ()) -> Arrays:
    """Read the tensors of a PyTorch checkpoint (zip or legacy format) or a safetensors file.

    The format is detected from the content. Tensors keep their dtype: bool, (u)int8 to (u)int64,
    float16, float32, float64, bfloat16 (ml_dtypes). Strided, shared and empty tensors, scalars and
    parameters can be read. Anything else in the checkpoint is left out (`read_contents` lists it).
    No code that the file names is ever imported or run.

    Args:
      path: the file.
      skip_globals: names ("module.name") of classes and functions besides those of tensors, whose
        objects are ignored instead of refused.

    Returns:
      Arrays by key, as described at `Contents.tensors`.

    Raises:
      TorchFileError: the file is missing, not a checkpoint, damaged, or holds objects or tensors of
        other kinds. Damaged values are detected in the zip format, which has checksums. In the
        other two, damage is detected only if it changes the structure.
    """
    return read_contents(path, skip_globals).tensors


def read_contents(path: str | os.PathLike[str], skip_globals: Collection[str] = ()) -> Contents:
    """Read tensors as `read_tensors` does, and also return the layout and a list of non-tensors."""
    with naming(path, "read"), _opened(pathlib.Path(path)) as file:
        data = _map(file)
        # Safetensors first: its first eight bytes are a length and can look like any other format.
        if _starts(data, b"{", at=8):
            return Contents("safetensors", read_safetensors(path, data))
        _refuse_other_files(data)
        if _starts(data, b"PK\x03\x04"):
            return _contents(read_zip(file, data, skip_globals), data.size)
        if _starts(data, b"\x80"):
            return _contents(read_legacy(data, skip_globals), data.size)
        raise MalformedError(
            "is neither a PyTorch checkpoint nor a safetensors file",
            "give a file that torch.save or safetensors wrote",
        )


def describe(path: str | os.PathLike[str], skip_globals: Collection[str] = ()) -> str:
    """Format a table of a file's tensors (key, shape, dtype) and a list of skipped parts.

    Raises:
      TorchFileError: see `read_tensors`.
    """
    contents = read_contents(path, skip_globals)
    tensors = contents.tensors
    total = sum(array.nbytes for array in tensors.values())
    count = f"{len(tensors):,} tensor{'' if len(tensors) == 1 else 's'}"
    lines = [f"{os.fspath(path)}: {contents.layout} format, {count}, {total:,} bytes"]
    rows = [(printable(key), str(a.shape), a.dtype.name) for key, a in tensors.items()]
    lines += _table([("key", "shape", "dtype"), *rows]) if rows else []
    lines += ["not tensors, skipped:"] if contents.skipped else []
    lines += [f"  {printable(key) or '(all)'}: {kind}" for key, kind in contents.skipped.items()]
    return "\n".join(lines)


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"  {row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}" for row in rows]


def _opened(path: pathlib.Path) -> BinaryIO:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise MalformedError("is not a regular file", "give the file that torch.save wrote")
    return path.open("rb")


def _map(file: BinaryIO) -> NDArray[np.uint8]:
    if os.fstat(file.fileno()).st_size == 0:
        raise MalformedError("is empty")
    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def _starts(data: NDArray[np.uint8], signature: bytes, at: int = 0) -> bool:
    return data[at : at + len(signature)].tobytes() == signature


def _refuse_other_files(data: NDArray[np.uint8]) -> None:
    for offset, signature, problem, fix in _OTHER_FILES:
        if _starts(data, signature, offset):
            raise MalformedError(problem, fix)


def _contents(checkpoint: Checkpoint, file_size: int) -> Contents:
    tensors: dict[str, Tensor] = {}
    skipped: dict[str, str] = {}
    for key, value in _leaves(checkpoint.value, "", 0, _parts_with_tensors(checkpoint.value)):
        if not isinstance(value, Tensor):
            skipped[key] = _kind(value)
        elif key in tensors:
            raise MalformedError(f"has two tensors of key {printable(key)}", RESAVE)
        else:
            tensors[key or "tensor"] = value
        if len(tensors) + len(skipped) > _MAX_TENSORS:
            raise MalformedError(f"has more than {_MAX_TENSORS:,} entries", RESAVE)
    if sum(tensor.nbytes for tensor in tensors.values()) > _MAX_SHARING * file_size + _FREE_BYTES:
        raise MalformedError("has expanded tensors far larger than the file", RESAVE)
    arrays = {key: checkpoint.array(tensor) for key, tensor in tensors.items()}
    return Contents(checkpoint.layout, arrays, skipped)


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return iter(value.items())
    return enumerate(value) if isinstance(value, list | tuple) else iter(())


def _parts_with_tensors(value: Any) -> set[int]:
    """Return the ids of all containers with a tensor at any depth; each is visited once."""
    found: set[int] = set()
    visited: set[int] = set()

    def visit(part: Any, depth: int) -> bool:
        """Return True if a part is a tensor or contains one, and record the containers that do."""
        if isinstance(part, Tensor) or id(part) in visited:
            return isinstance(part, Tensor) or id(part) in found
        if depth > _MAX_DEPTH:
            raise MalformedError(f"is nested more than {_MAX_DEPTH} levels deep", RESAVE)
        if isinstance(part, Mapping | list | tuple):
            visited.add(id(part))
            below = [visit(child, depth + 1) for _, child in _children(part)]
            if any(below):
                found.add(id(part))
        return id(part) in found

    visit(value, 0)
    return found


def _leaves(value: Any, key: str, depth: int, with_tensors: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield every tensor, and every largest part without tensors, with its key."""
    if len(key) > _MAX_KEY_LENGTH:
        raise MalformedError(f"has a key of more than {_MAX_KEY_LENGTH:,} characters", RESAVE)
    if depth > _MAX_DEPTH:
        raise MalformedError("has a container that contains itself", RESAVE)
    if id(value) not in with_tensors:
        yield key, value
        return
    for name, child in _children(value):
        yield from _leaves(child, f"{key}.{name}" if depth else str(name), depth + 1, with_tensors)


def _kind(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        count = f"{len(value):,} item{'' if len(value) == 1 else 's'}"
        return f"{type(value).__name__} of {count}, no tensors"
    if isinstance(value, Opaque):
        return printable(value.name)
    if isinstance(value, np.dtype):
        return "dtype"
    return "None" if value is None else type(value).__name__.lower()
