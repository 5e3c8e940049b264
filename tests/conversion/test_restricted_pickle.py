"""Hostile pickles: nothing runs, memory does not grow, and the message names what was refused."""

import os
import pathlib
import pickle
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from s3_jax.conversion import restricted_pickle, torch_file
from s3_jax.conversion.torch_file import TorchFileError, read_contents, read_tensors
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


class Attack:
    """Pickled, it calls `function(*arguments)` when Python's unpickler reads it."""

    def __init__(self, function: object, *arguments: object):
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def refusal(path: pathlib.Path) -> str:
    """The one line that says why a file is refused."""
    with pytest.raises(TorchFileError) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_code_is_named_and_never_run(tmp_path: pathlib.Path, protocol: int, write) -> None:
    marker = tmp_path / "was_run"
    attacks = {"a": Attack(os.mkdir, str(marker)), "b": Attack(eval, f"open({str(marker)!r}, 'w')")}
    message = refusal(write(tmp_path / "hostile.pth", pickle.dumps(attacks, protocol)))
    assert f"{os.name}.mkdir" in message and "eval" in message
    assert "torch.save(model.state_dict(), path)" in message
    assert not marker.exists()


def test_code_is_not_run_when_passed_over(tmp_path: pathlib.Path) -> None:
    marker = tmp_path / "was_run"
    data = pickle.dumps({"a": Attack(os.mkdir, str(marker))}, 2)
    path = write_zip(tmp_path / "hostile.pth", data)
    contents = read_contents(path, skip_globals=[f"{os.name}.mkdir"])
    assert contents.skipped == {"": "dict of 1 item, no tensors"} and not contents.tensors
    assert not marker.exists()


def test_every_refused_name_is_listed(tmp_path: pathlib.Path) -> None:
    names = b"".join(name("evil", f"Class{i}") for i in range(20))
    message = refusal(write_zip(tmp_path / "many.pth", program(b"](" + names + b"e")))
    assert "evil.Class0, evil.Class1" in message and "and 12 more" in message


def test_names_are_shown_without_control_characters(tmp_path: pathlib.Path) -> None:
    message = refusal(write_zip(tmp_path / "escape.pth", program(name("evil", "\x1b[2J"))))
    assert "'evil.\\x1b[2J'" in message


def nested(opening: bytes, closing: bytes, depth: int) -> bytes:
    return opening * depth + b"N" + closing * depth


HOSTILE = {
    "instance": (b"(ios\nsystem\n", "opcode 0x69"),
    "object": (b"(" + name("os", "system") + text("true") + b"o", "opcode 0x6f"),
    "extension": (b"\x82\x01", "opcode 0x82"),
    "protocol 0 text": (b"I1\n", "opcode 0x49"),
    "future protocol": (b"\x80\x63N", "protocol 99"),
    "call of a list": (b"])R", "calls a list"),
    "call without arguments": (name("collections", "OrderedDict") + b"NR", "argument list"),
    "attributes of a list": (b"]}b", "attributes of a list"),
    "items of a list": (b"]NNs", "sets items of a list"),
    "append to a dict": (b"}Na", "appends to a dict"),
    "key without value": (b"}(Nu", "key without a value"),
    "empty stack": (b"0", "more values than it made"),
    "value below a mark": (b"N(0", "more values than it made"),
    "no mark": (b"t", "without an expected mark"),
    "unknown memo": (b"h\x07", "recalls value 7"),
    "huge text": (b"\x8d" + b"\xff" * 7 + b"\x7f", "ends inside a pickle"),
    "negative length": (b"T\xff\xff\xff\xff", "ends inside a pickle"),
    "huge integer": (b"\x8b\x00\x01\x00\x00" + b"\x01" * 256, "integer of 256 bytes"),
    "not UTF-8": (b"X\x01\x00\x00\x00\xff", "not UTF-8"),
    "endless name": (b"c" + b"x" * 1000 + b"\n", "endless name"),
    "global of numbers": (b"K\x01K\x02\x93", "has no name"),
    "endless global": (text("x" * 1000) + text("y") + b"\x93", "endless name"),
    "tuple as key": (b"}" + b"N\x85" + b"Ns", "key of type tuple"),
    "deep key": (b"}" + nested(b"", b"\x85", 10_000) + b"Ns", "key of type tuple"),
    "deep tuples": (nested(b"", b"\x85", 10_000), "64 levels"),
    "deep lists": (nested(b"]", b"a", 10_000), "64 levels"),
    "deep dicts": (nested(b"}N", b"s", 10_000), "64 levels"),
    "list in itself": (b"]q\x00(" + tensor() + b"h\x00e", "contains itself"),
    "string id": (text("storage") + b"Q", "malformed storage"),
    "foreign id": (b"(" + text("file") + text("/etc/passwd") + b"tQ", "malformed storage"),
    "storage without class": (b"(" + text("storage") + b"NNNNtQ", "malformed storage"),
    "dtype as id": (b"(" + name("torch", "float32") + b"NNNNtQ", "malformed storage"),
    "negative storage": (storage(numel=-1), "malformed storage"),
    "builder without arguments": (name("torch._utils", "_rebuild_tensor_v2") + b")R", "arguments"),
    "v3 without dtype": (name("torch._utils", "_rebuild_tensor_v3") + b"(NNNNNNNtR", "storage"),
    "parameter of a number": (name("torch._utils", "_rebuild_parameter") + b"K\x01NN\x87R", "argu"),
    "dictionary of a number": (name("collections", "OrderedDict") + b"K\x01\x85R", "OrderedDict"),
    "dictionary of lists": (name("collections", "OrderedDict") + b"](]Nae\x85R", "OrderedDict"),
    "size of a number": (name("torch", "Size") + b"K\x01\x85R", "torch.Size"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_malformed_pickles_are_refused(tmp_path: pathlib.Path, case: str) -> None:
    value, words = HOSTILE[case]
    assert words in refusal(write_zip(tmp_path / "hostile.pth", program(value)))


@pytest.mark.parametrize("case", ["huge text", "negative length", "huge integer"])
def test_sizes_are_checked_before_allocating(tmp_path: pathlib.Path, case: str) -> None:
    path = write_zip(tmp_path / "hostile.pth", program(HOSTILE[case][0]))
    tracemalloc.start()
    try:
        refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_builders_cannot_recurse(tmp_path: pathlib.Path) -> None:
    """_rebuild_from_type_v2 calls another builder, but not itself."""
    function = name("torch._tensor", "_rebuild_from_type_v2")
    kind = name("torch", "Tensor")
    arguments = b")"
    for _ in range(3000):
        arguments = b"(" + function + kind + arguments + b"}t"
    path = write_zip(tmp_path / "recursive.pth", program(function + arguments + b"R"))
    assert "_rebuild_from_type_v2" in refusal(path)


def test_a_far_memo_index_costs_nothing(tmp_path: pathlib.Path) -> None:
    far = b"r\xff\xff\xff\xff"
    value = dictionary({"w": tensor() + far, "again": b"j\xff\xff\xff\xff"})
    tensors = read_tensors(write_zip(tmp_path / "memo.pth", program(value)))
    np.testing.assert_array_equal(tensors["w"], tensors["again"])


def doubling(leaf: bytes, levels: int) -> bytes:
    """A list of twice the same list of twice ... the same leaf."""
    value = leaf + b"q\x00"
    for level in range(levels):
        value = b"](" + value + b"h" + bytes([level]) + b"eq" + bytes([level + 1])
    return value


def test_shared_lists_without_tensors_are_visited_once(tmp_path: pathlib.Path) -> None:
    path = write_zip(tmp_path / "laughs.pth", program(doubling(b"N", 60)))
    assert read_contents(path).skipped == {"": "list of 2 items, no tensors"}


def test_shared_lists_of_tensors_are_bounded(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_zip(tmp_path / "laughs.pth", program(doubling(tensor(), 60)))
    monkeypatch.setattr(torch_file, "_MAX_TENSORS", 1000)
    assert "more than 1,000 entries" in refusal(path)


def test_long_keys_are_bounded(tmp_path: pathlib.Path) -> None:
    path = write_zip(tmp_path / "key.pth", program(dictionary({"k" * 5000: tensor()})))
    assert "a key of more than 1,024 characters" in refusal(path)


def test_operations_are_bounded(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "long.pth", program(b"](" + b"}" * 2000 + b"e"))
    assert read_contents(path).skipped == {"": "list of 2,000 items, no tensors"}
    monkeypatch.setenv("S3_JAX_LIMITS", "pickle_operations=1000")
    assert "more than 1,000 operations" in refusal(path)


def repeated_calls(function: bytes, argument: bytes) -> bytes:
    """3,000 calls for three bytes each, all with the same argument."""
    kept = argument + b"q\x000" + function + b"q\x010"
    return kept + b"(" + b"h\x01h\x00\x85R" * 3000 + b"t"


COSTLY = {
    "colliding keys": (
        b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(2000)) + b"u",
        "1,000 keys that are not text",
    ),
    "colliding keys in a call": (
        repeated_calls(name("collections", "OrderedDict"), b"](" + b"K\x01N\x86" * 101 + b"e"),
        "100 in one call",
    ),
    "copies of a list of pairs": (
        repeated_calls(
            name("collections", "OrderedDict"), b"](" + (text("k") + b"N\x86") * 500 + b"e"
        ),
        "20,000 operations",
    ),
    "copies of a size": (
        repeated_calls(name("torch", "Size"), b"](" + b"N" * 5000 + b"e"),
        "20,000 operations",
    ),
    "long shapes": (
        tensor().replace(numbers((2, 3)), b"(" + b"K\x01" * 5000 + b"t"),
        "5000 dimensions",
    ),
}


@pytest.mark.parametrize("case", COSTLY)
def test_small_files_take_little_time(
    tmp_path: pathlib.Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_JAX_LIMITS", "pickle_operations=20000,pickle_number_keys=1000")
    value, words = COSTLY[case]
    path = write_zip(tmp_path / "costly.pth", program(value))
    message = refusal(path)
    assert words in message
    assert ("set the environment variable S3_JAX_LIMITS=" in message) == (case != "long shapes")


def test_members_cannot_share_their_bytes(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "overlap.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", program(dictionary({"w": tensor()})))
        archive.writestr("a/data/0", SIX_FLOATS)
        for i in range(100):
            archive.writestr(f"a/data/x{i}", b"x" * 1000)
        for i in range(100):  # in the directory alone
            archive.NameToInfo[f"a/data/x{i}"].compress_size = 10**6
    assert "members that overlap" in refusal(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_plain_data_as_python_does(protocol: int) -> None:
    shared = ["x", 1.5]
    value = {
        "numbers": [0, 255, 256, 65536, -1, 2**31, -(2**63), 2**80, 1e-300],
        "text": ["", "é", "k" * 300],
        "constants": (None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "shared": [shared, shared],
        "bytes": [b"", b"b" * 300] if protocol > 2 else [],
        7: {1.5: {}, None: [], True: "key"},
    }
    data = pickle.dumps(value, protocol)
    padded = b"before" + data + b"after"
    result, end = restricted_pickle.load(memoryview(padded), 6, no_name, no_name)
    assert result == value and end == 6 + len(data)
    assert result["shared"][0] is result["shared"][1]


def test_ordered_dictionaries_keep_their_order() -> None:
    data = pickle.dumps(OrderedDict([("b", 1), ("a", 2)]), 2)
    ordered = restricted_pickle.Builder(lambda arguments: {})
    result, _ = restricted_pickle.load(memoryview(data), 0, lambda name: ordered, no_name)
    assert list(result.items()) == [("b", 1), ("a", 2)]


def no_name(value: object) -> object:
    raise AssertionError(f"asked for {value}")


def test_number_helper_is_what_the_interpreter_reads() -> None:
    value, _ = restricted_pickle.load(memoryview(program(number(-(2**70)))), 0, no_name, no_name)
    assert value == -(2**70)
