"""Damaged and hostile containers: sizes and positions are checked before they are used."""

import pathlib
import struct
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3_jax.conversion.torch_file import TorchFileError, read_tensors
from tests.conversion.crafted import (
    SIX_FLOATS,
    dictionary,
    name,
    number,
    numbers,
    program,
    storage,
    tensor,
    text,
    write_legacy,
    write_zip,
)

FILES = pathlib.Path(__file__).parents[1] / "goldens" / "torch_files"
CHECKSUMMED = ["bare_tensor.pt", "dtypes_zip.pth", "views_zip.pth", "training_zip.pth"]
OTHERS = ["dtypes_legacy.pth", "views_legacy.pth", "old_legacy.pth", "dtypes.safetensors"]
VALUE = program(dictionary({"w": tensor()}))
VIEWED = np.arange(6, dtype=np.float32)


def refusal(path: pathlib.Path) -> str:
    with pytest.raises(TorchFileError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


@pytest.mark.parametrize("file", ["bare_tensor.pt", "old_legacy.pth", "dtypes.safetensors"])
def test_truncated_files_are_refused(tmp_path: pathlib.Path, file: str) -> None:
    """The last 400 bytes, which hold the structure, are cut at every byte, others at each fifth."""
    whole = (FILES / file).read_bytes()
    path = tmp_path / file
    dense = max(0, len(whole) - 400)
    for length in [*range(0, dense, 5), *range(dense, len(whole))]:
        path.write_bytes(whole[:length])
        refusal(path)


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(
        (left[key].dtype, left[key].shape, left[key].tobytes())
        == (right[key].dtype, right[key].shape, right[key].tobytes())
        for key in left
    )


@settings(max_examples=150)
@given(data=st.data(), file=st.sampled_from(CHECKSUMMED + OTHERS))
def test_damage_is_noticed_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, file: str
) -> None:
    """Checksums notice every changed byte; the other formats at least never fail otherwise."""
    damaged = bytearray((FILES / file).read_bytes())
    position = data.draw(st.integers(0, len(damaged) - 1))
    damaged[position] ^= data.draw(st.integers(1, 255))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    path = tmp_path_factory.mktemp("damage") / file
    path.write_bytes(damaged)
    try:
        tensors = read_tensors(path)
        for array in tensors.values():
            array.tobytes()
    except TorchFileError as error:
        assert str(error).startswith(f"{path}: ")
    else:
        assert file in OTHERS or same(tensors, read_tensors(FILES / file))


TENSORS = {
    "past the end": (tensor(shape=(2, 4)), "ends at element 6 of a storage of 6"),
    "offset": (tensor(offset=1), "ends at element 6 of a storage of 6"),
    "stride": (tensor(strides=(4, 1)), "ends at element 6 of a storage of 6"),
    "negative size": (tensor(shape=(-1, 3)), "not counts"),
    "negative stride": (tensor(strides=(-3, 1)), "not counts"),
    "negative offset": (tensor(offset=-1), "not counts"),
    "wide integer": (tensor(shape=(2**64, 1), strides=(0, 0)), "not counts"),
    "too few strides": (tensor(strides=(1,)), "2 dimensions and 1 strides"),
    "too many dimensions": (tensor(shape=(1,) * 65, strides=(1,) * 65), "65 dimensions"),
    "impossible": (tensor(shape=(2**40, 2**40), strides=(0, 0)), "impossible size"),
    "impossible but empty": (tensor((0, 2**40, 2**40), (0, 0, 0)), "impossible size"),
    "expanded": (tensor(shape=(10**12,), strides=(0,)), "far larger than the file"),
    "storage": (tensor(base=storage(numel=7)), "24 bytes in storage 0, not 28"),
    "huge storage": (tensor(base=storage(numel=2**60)), "24 bytes in storage 0, not"),
    "storage of two sizes": (
        dictionary({"a": tensor(), "b": tensor(base=storage(numel=7))}),
        "two sizes",
    ),
    "missing storage": (tensor(base=storage("../../etc/passwd")), "has no record data/../../etc"),
    "view": (tensor(base=storage(view=text("1") + number(4) + number(3) + b"\x87")), "view outs"),
    "negative view": (
        tensor(base=storage(view=text("1") + number(-1) + number(3) + b"\x87")),
        "vi",
    ),
    "quantised": (tensor(base=storage(kind="QInt8Storage")), "torch.QInt8Storage"),
    "shape is no tuple": (
        name("torch._utils", "_rebuild_tensor") + b"(" + storage() + b"K\x00NNtR",
        "not counts",
    ),
    "size is no number": (
        name("torch._utils", "_rebuild_tensor") + b"(" + storage() + b"K\x00N\x85K\x01\x85tR",
        "not counts",
    ),
}


@pytest.mark.parametrize("case", TENSORS)
def test_impossible_tensors_are_refused(tmp_path: pathlib.Path, case: str) -> None:
    value, words = TENSORS[case]
    tracemalloc.start()
    try:
        assert words in refusal(write_zip(tmp_path / "hostile.pth", program(value)))
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_strides_of_single_elements_are_free(tmp_path: pathlib.Path) -> None:
    value = tensor(shape=(1, 6), strides=(2**62, 1))
    result = read_tensors(write_zip(tmp_path / "stride.pth", program(value)))["tensor"]
    np.testing.assert_array_equal(result, VIEWED[None])


def test_the_parts_of_a_storage_view_are_found(tmp_path: pathlib.Path) -> None:
    part = storage(view=text("1") + number(2) + number(4) + b"\x87")
    value = dictionary({"part": tensor((2,), (2,), 1, part), "whole": tensor((6,), (1,))})
    tensors = read_tensors(write_legacy(tmp_path / "views.pth", program(value)))
    np.testing.assert_array_equal(tensors["part"], VIEWED[[3, 5]])
    np.testing.assert_array_equal(tensors["whole"], VIEWED)


def test_member_of_wrong_checksum_is_named(tmp_path: pathlib.Path) -> None:
    path = write_zip(tmp_path / "damaged.pth", VALUE)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(SIX_FLOATS) + 5] ^= 1
    path.write_bytes(damaged)
    assert "member archive/data/0 with a wrong checksum; the file is damaged" in refusal(path)


def test_compressed_members_are_refused(tmp_path: pathlib.Path) -> None:
    """Decompressing could make any amount of bytes out of few."""
    path = write_zip(tmp_path / "bomb.pth", VALUE, {"data/0": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    assert "compressed or encrypted member archive/data.pkl" in refusal(path)


def test_repacked_without_compression_is_read(tmp_path: pathlib.Path) -> None:
    """The archive is as written by `zip -0 -r`, with entries for the directories."""
    path = tmp_path / "repacked.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("müll/", b"")
        archive.writestr("müll/data/", b"")
        archive.writestr("müll/data/0", SIX_FLOATS)
        archive.writestr("müll/data.pkl", VALUE)
    np.testing.assert_array_equal(read_tensors(path)["w"], VIEWED.reshape(2, 3))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_ambiguous_archives_are_refused(tmp_path: pathlib.Path) -> None:
    path = write_zip(tmp_path / "two.pth", VALUE)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", VALUE)
    assert "2 data.pkl" in refusal(path)
    path = write_zip(tmp_path / "same.pth", VALUE)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", SIX_FLOATS)
    assert "two members of one name" in refusal(path)


def test_other_zips_and_byte_orders_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "arrays.npz"
    np.savez(path, w=VIEWED)
    assert "is a zip file but not a PyTorch checkpoint" in refusal(path)
    records = {"data/0": SIX_FLOATS, "byteorder": b"middle"}
    path = write_zip(tmp_path / "order.pth", VALUE, records)
    assert "unknown byte order b'middle'" in refusal(path)


def test_file_without_byte_order_is_little_endian(tmp_path: pathlib.Path) -> None:
    result = read_tensors(write_zip(tmp_path / "plain.pth", VALUE))["w"]
    np.testing.assert_array_equal(result, VIEWED.reshape(2, 3))


COUNT = struct.pack("<q", 6)
LEGACY: dict[str, tuple[dict[str, Any], str]] = {
    "no storages": ({"storages": b""}, "ends inside of storage 0"),
    "short storage": ({"storages": COUNT + SIX_FLOATS[:-1]}, "ends inside of storage 0"),
    "other count": ({"storages": struct.pack("<q", 5) + SIX_FLOATS}, "has 5 elements in storage 0"),
    "huge count": ({"storages": b"\xff" * 7 + b"\x7f" + SIX_FLOATS}, "elements in storage 0"),
    "unlisted": ({"keys": ()}, "lacks the bytes of storage 0"),
    "unused": ({"keys": ("1", "0")}, "lists storage 1"),
    "keys of numbers": ({"keys": (7,)}, "malformed list of storages"),
    "no list": ({"keys": {"0": 0}}, "malformed list of storages"),
}


@pytest.mark.parametrize("case", LEGACY)
def test_inconsistent_legacy_storages_are_refused(tmp_path: pathlib.Path, case: str) -> None:
    changes, words = LEGACY[case]
    assert words in refusal(write_legacy(tmp_path / "legacy.pth", VALUE, **changes))


def test_legacy_file_of_huge_storage_is_refused(tmp_path: pathlib.Path) -> None:
    value = program(tensor(base=storage(numel=2**60)))
    assert "ends inside of storage 0" in refusal(write_legacy(tmp_path / "huge.pth", value))


def test_unknown_legacy_version_is_refused(tmp_path: pathlib.Path) -> None:
    magic = program(b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19")
    path = tmp_path / "future.pth"
    path.write_bytes(magic + program(number(1002)))
    assert "unknown version of PyTorch's legacy format" in refusal(path)


def test_tensor_of_a_size_object(tmp_path: pathlib.Path) -> None:
    """Early versions pickled torch.Size where later ones have a tuple."""
    shape = name("torch", "Size") + numbers((2, 3)) + b"\x85R"
    arguments = b"(" + storage() + number(0) + shape + numbers((3, 1)) + b"t"
    value = name("torch._utils", "_rebuild_tensor") + arguments + b"R"
    result = read_tensors(write_legacy(tmp_path / "size.pth", program(value)))["tensor"]
    np.testing.assert_array_equal(result, VIEWED.reshape(2, 3))
