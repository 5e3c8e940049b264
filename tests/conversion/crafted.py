"""Checkpoints made by hand, with content that PyTorch would never write."""

import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping

LEGACY_HEADER = b"".join(
    pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {})
)


def text(value: str) -> bytes:
    return pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return pickle.LONG1 + b"\x10" + value.to_bytes(16, "little", signed=True)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def storage(key: str = "0", numel: int = 6, kind: str = "FloatStorage", view: bytes = b"") -> bytes:
    """A persistent id; `view` is the sixth field of the legacy format."""
    fields = text("storage") + name("torch", kind) + text(key) + text("cpu") + number(numel)
    return b"(" + fields + view + b"tQ"


def tensor(
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    offset: int = 0,
    base: bytes | None = None,
) -> bytes:
    """A call of the tensor builder on a storage of six float32."""
    place = (base or storage()) + number(offset) + numbers(shape) + numbers(strides)
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + place + b"\x89NtR"


def dictionary(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def program(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


SIX_FLOATS = struct.pack("<6f", *range(6))


def write_zip(
    path: pathlib.Path,
    data_pickle: bytes,
    records: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> pathlib.Path:
    """A zip checkpoint with this pickle and, if nothing else is said, storage 0 of six floats."""
    members = {"data.pkl": data_pickle, **({"data/0": SIX_FLOATS} if records is None else records)}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for member, raw in members.items():
            archive.writestr(f"archive/{member}", raw)
    return path


def write_legacy(
    path: pathlib.Path,
    data_pickle: bytes,
    keys: object = ("0",),
    storages: bytes = struct.pack("<q", 6) + SIX_FLOATS,
) -> pathlib.Path:
    listed = list(keys) if isinstance(keys, tuple) else keys
    path.write_bytes(LEGACY_HEADER + data_pickle + pickle.dumps(listed, protocol=2) + storages)
    return path
