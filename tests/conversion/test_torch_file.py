"""Files written by PyTorch and safetensors are read as those libraries read them."""

import json
import pathlib
import struct
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.conversion.torch_file import (
    TorchFileError,
    describe,
    read_contents,
    read_tensors,
    write_torch_file,
)
from tests.conversion.crafted import dictionary, program, tensor, write_zip

FILES = pathlib.Path(__file__).parents[1] / "goldens" / "torch_files"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FILES / "expected.json").read_text())


@pytest.mark.parametrize("file", EXPECTED)
def test_reads_what_torch_reads(file: str) -> None:
    tensors = read_tensors(FILES / file)
    assert set(tensors) == set(EXPECTED[file])
    for key, expected in EXPECTED[file].items():
        array = tensors[key]
        assert (key, array.dtype.name, list(array.shape), array.tobytes().hex()) == (
            *(key, expected["dtype"], expected["shape"]),
            expected["hex"],
        )
        assert array.flags.aligned and array.dtype.isnative


@pytest.mark.parametrize(
    ("file", "layout"),
    [
        ("views_zip.pth", "zip"),
        ("views_legacy.pth", "legacy"),
        ("old_legacy.pth", "legacy"),
        ("dtypes.safetensors", "safetensors"),
    ],
)
def test_finds_the_format_from_the_content(tmp_path: pathlib.Path, file: str, layout: str) -> None:
    renamed = tmp_path / "renamed.bin"
    renamed.write_bytes((FILES / file).read_bytes())
    assert read_contents(renamed).layout == layout
    assert set(read_tensors(renamed)) == set(EXPECTED[file])


@pytest.mark.parametrize("file", ["dtypes_zip.pth", "dtypes_legacy.pth", "dtypes.safetensors"])
def test_arrays_go_to_jax(file: str) -> None:
    tensors = read_tensors(FILES / file)
    for key in ("bfloat16", "float32", "bool", "uint8"):
        on_device = jnp.asarray(tensors[key])
        assert on_device.dtype == tensors[key].dtype
        np.testing.assert_array_equal(np.asarray(on_device), tensors[key])


def test_lists_what_is_not_a_tensor() -> None:
    contents = read_contents(FILES / "training_zip.pth")
    assert contents.skipped == {
        "it": "int",
        "optimizer.param_groups": "list of 1 item, no tensors",
        "scheduler": "dict of 8 items, no tensors",
        "best": "numpy._core.multiarray.scalar",
        "note": "_codecs.encode",
        "seen": "__builtin__.set",
        "dtype": "dtype",
        "shape": "tuple of 2 items, no tensors",
        "device": "torch.device",
        "nothing": "None",
        "list.1": "str",
    }
    assert {"weights.0.weight", "optimizer.state.0.exp_avg", "list.2.0"} <= set(contents.tensors)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("refused_namespace.pth", ["argparse.Namespace", "state_dict()", "skip_globals"]),
        ("refused_module_zip.pth", ["__main__.Own", "state_dict()"]),
        ("refused_module_legacy.pth", ["whole pickled module", "state_dict()"]),
        ("refused_quantised.pth", ["quantised", "_rebuild_qtensor", "float32"]),
        ("refused_sparse.pth", ["sparse", "dense"]),
        ("refused_complex.pth", ["ComplexFloatStorage", "float32"]),
        ("refused_float8.pth", ["float8_e4m3fn", "float32"]),
        ("refused_negated.pth", ["negated", "resolve_neg"]),
        ("refused_array.pth", ["numpy.ndarray", "numpy._core.multiarray._reconstruct"]),
        ("refused_script.pt", ["TorchScript", "state_dict()"]),
    ],
)
def test_refuses_in_one_line_with_file_and_fix(file: str, words: list[str]) -> None:
    with pytest.raises(TorchFileError) as caught:
        read_tensors(FILES / file)
    message = str(caught.value)
    assert message.startswith(f"{FILES / file}: ") and "\n" not in message
    assert all(word in message for word in words), message


def test_named_objects_can_be_passed_over() -> None:
    file = FILES / "refused_namespace.pth"
    contents = read_contents(file, skip_globals=["argparse.Namespace"])
    assert contents.skipped == {"args": "argparse.Namespace"}
    assert set(contents.tensors) == {f"model.{key}" for key in EXPECTED["views_zip.pth"]}
    with pytest.raises(TorchFileError, match=r"argparse\.Namespace"):
        read_tensors(file, skip_globals=["argparse.Other"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PK", "neither a PyTorch checkpoint nor"),
        (b"weights of a model", "neither a PyTorch checkpoint nor"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x1f\x8b\x08\x00", "gunzip"),
        (b"\x80\x04K\x07.", "is a pickle but not a PyTorch checkpoint"),
        (b"\0" * 257 + b"ustar", "torch < 0.1.10"),
    ],
)
def test_other_files_are_recognised(tmp_path: pathlib.Path, content: bytes, words: str) -> None:
    file = tmp_path / "model.pth"
    file.write_bytes(content)
    with pytest.raises(TorchFileError, match=r"model\.pth: ") as caught:
        read_tensors(file)
    assert words in str(caught.value)


@pytest.mark.parametrize("length", [0x80, 0x8B1F])
def test_safetensors_headers_may_look_like_another_format(
    tmp_path: pathlib.Path, length: int
) -> None:
    """The file begins with the header's length: here as a pickle or gzip file would."""
    header = b'{"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'.ljust(length)
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + header + b"\x01\x02")
    np.testing.assert_array_equal(read_tensors(path)["w"], [1, 2])


def test_damaged_safetensors_is_refused(tmp_path: pathlib.Path) -> None:
    header = b'{"w":{"dtype":"U8","shape":[3],"data_offsets":[0,2]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\x01\x02")
    with pytest.raises(TorchFileError, match="not a valid safetensors file"):
        read_tensors(path)
    float8 = header.replace(b"U8", b"F8_E4M3").replace(b"[3]", b"[2]")
    path.write_bytes(struct.pack("<Q", len(float8)) + float8 + b"\x01\x02")
    with pytest.raises(TorchFileError, match="tensor w of unsupported dtype F8_E4M3"):
        read_tensors(path)


def test_missing_file_and_directory_are_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TorchFileError, match=r"absent\.pth: cannot be read \(No such file"):
        read_tensors(tmp_path / "absent.pth")
    with pytest.raises(TorchFileError, match=r"cannot be read \(Is a directory"):
        read_tensors(tmp_path)


def test_keys_that_coincide_are_refused(tmp_path: pathlib.Path) -> None:
    value = dictionary({"a.b": tensor(), "a": dictionary({"b": tensor()})})
    with pytest.raises(TorchFileError, match=r"two tensors of key a\.b"):
        read_tensors(write_zip(tmp_path / "twice.pth", program(value)))


def test_describe_lists_every_tensor(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "model.pth"
    write_torch_file(file, {"stem.weight": np.zeros((2, 3), np.float32), "steps": np.array(4)})
    assert describe(file).splitlines() == [
        f"{file}: zip format, 2 tensors, 32 bytes",
        "  key          shape   dtype",
        "  stem.weight  (2, 3)  float32",
        "  steps        ()      int64",
    ]


def test_describe_shows_what_was_skipped_and_no_control_characters(
    tmp_path: pathlib.Path,
) -> None:
    value = dictionary({"\x1b[2Jw": tensor(), "epoch": b"K\x05"})
    lines = describe(write_zip(tmp_path / "model.pth", program(value))).splitlines()
    assert lines[2] == "  '\\x1b[2Jw'  (2, 3)  float32"
    assert lines[3:] == ["not tensors, skipped:", "  epoch: int"]
    assert describe(write_zip(tmp_path / "none.pth", program(b"K\x05"))).splitlines()[1:] == [
        "not tensors, skipped:",
        "  (all): int",
    ]


@pytest.mark.parametrize("shape", [[2**63 - 1, 0], [0, 2**62, 2**62], [1] * 70])
def test_impossible_shapes_in_safetensors_are_refused(tmp_path: pathlib.Path, shape) -> None:
    size = 0 if 0 in shape else 4
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * size)
    with pytest.raises(TorchFileError, match="tensor a of impossible shape"):
        read_tensors(path)
