"""Written checkpoints are read back bit for bit, and are never incomplete."""

import pathlib
import resource
import zipfile
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from s3_jax.conversion.torch_file import (
    TorchFileError,
    read_tensors,
    write_safetensors,
    write_torch_file,
)

FILES = pathlib.Path(__file__).parents[1] / "goldens" / "torch_files"
Writer = Callable[[pathlib.Path, dict[str, Any]], None]
both = pytest.mark.parametrize("write", [write_torch_file, write_safetensors])
DTYPES = [
    *(np.float16, np.float32, np.float64, ml_dtypes.bfloat16, np.bool_),
    *(np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
]


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Any bits of any dtype, of 0 to 4 axes, in any memory order."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    count = int(np.prod(shape)) * dtype.itemsize
    bits = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), np.uint8)
    values = bits % 2 if dtype == np.bool_ else bits
    array = values.copy().view(dtype).reshape(shape)
    return array.transpose(draw(st.permutations(range(len(shape)))))


@both
@settings(max_examples=40)
@given(
    tensors=st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), arrays(), max_size=5
    )
)
def test_round_trip_keeps_every_bit(
    tmp_path_factory: pytest.TempPathFactory, write: Writer, tensors: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("round") / "model"
    write(path, tensors)
    result = read_tensors(path)
    assert result.keys() == tensors.keys()
    for key, array in tensors.items():
        assert (result[key].dtype, result[key].shape) == (array.dtype, array.shape)
        assert result[key].tobytes() == array.tobytes()


def model() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.normal(size=(3, 3, 2, 5)).astype(np.float32).transpose(3, 2, 0, 1),
        "bn.num_batches_tracked": np.int64(7),
        "half": rng.normal(size=(4,)).astype(ml_dtypes.bfloat16),
        "from_jax": jnp.ones((2, 2), jnp.bfloat16),
        "big_endian": np.arange(3, dtype=">f4"),
        "reversed": np.arange(5)[::-1],
        "broadcast": np.broadcast_to(np.float16(2), (2, 3)),
        "empty": np.zeros((0, 3), np.float32),
    }


@both
def test_values_of_all_kinds(tmp_path: pathlib.Path, write: Writer) -> None:
    write(tmp_path / "model", model())
    result = read_tensors(tmp_path / "model")
    for key, value in model().items():
        np.testing.assert_array_equal(result[key], np.asarray(value), strict=False)
        assert result[key].shape == np.shape(value)
    assert result["bn.num_batches_tracked"].dtype == np.int64
    assert result["big_endian"].dtype == np.float32


def test_torch_file_equals_the_one_that_torch_was_seen_to_load(tmp_path: pathlib.Path) -> None:
    """`loaded_by_torch.pth` was written here and read by torch; the writer must not drift."""
    source = read_tensors(FILES / "dtypes_zip.pth")
    write_torch_file(tmp_path / "again.pth", source)
    assert (tmp_path / "again.pth").read_bytes() == (FILES / "loaded_by_torch.pth").read_bytes()


def test_torch_file_has_aligned_records_with_checksums(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "model.pth"
    write_torch_file(path, model())
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("archive/byteorder") == b"little"
        assert archive.read("archive/version") == b"3\n"
        members = archive.infolist()
    raw = path.read_bytes()
    for member in members:
        lengths = np.frombuffer(raw, "<u2", 2, member.header_offset + 26)
        assert (member.header_offset + 30 + int(lengths.sum())) % 64 == 0
    assert list(read_tensors(path)) == list(model())


def test_safetensors_library_reads_the_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, model())
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata() == {"format": "pt"}
        assert set(file.keys()) == set(model())
        value = file.get_tensor("conv.weight")
    np.testing.assert_array_equal(value, model()["conv.weight"])


@both
def test_no_tensors(tmp_path: pathlib.Path, write: Writer) -> None:
    write(tmp_path / "empty", {})
    assert read_tensors(tmp_path / "empty") == {}


@both
def test_all_that_cannot_be_written_is_named(tmp_path: pathlib.Path, write: Writer) -> None:
    tensors: dict[Any, Any] = {
        "fine": np.ones(1),
        "c": np.ones(1, complex),
        5: np.ones(1),
        "s": np.array("x"),
    }
    with pytest.raises(TorchFileError) as caught:
        write(tmp_path / "model.pth", tensors)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'model.pth'}: ")
    assert "c is of unsupported dtype complex128" in message
    assert "key 5 is not text" in message and "s is of unsupported dtype <U1" in message
    assert list(tmp_path.iterdir()) == []


def test_safetensors_reserves_a_name(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TorchFileError, match="named __metadata__; rename"):
        write_safetensors(tmp_path / "model.safetensors", {"__metadata__": np.ones(1)})


@both
def test_full_disk_leaves_the_old_file(tmp_path: pathlib.Path, write: Writer) -> None:
    path = tmp_path / "model.pth"
    write(path, {"w": np.zeros(3)})
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(TorchFileError, match=r"model\.pth: cannot be written"):
            write(path, {"a": np.zeros(10), "w": np.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@both
def test_unwritable_place_is_named(tmp_path: pathlib.Path, write: Writer) -> None:
    (tmp_path / "file").write_text("")
    for parent in ("absent", "file"):
        with pytest.raises(TorchFileError, match=r"cannot be written .*check the path"):
            write(tmp_path / parent / "model.pth", {"w": np.zeros(3)})


@both
def test_file_may_replace_its_own_source(tmp_path: pathlib.Path, write: Writer) -> None:
    """Arrays that are views of a file stay valid when it is written anew."""
    path = tmp_path / "model.pth"
    write(path, {"w": np.arange(50_000.0)})
    tensors = read_tensors(path)
    write(path, {"w": tensors["w"][::-1]})
    np.testing.assert_array_equal(tensors["w"], np.arange(50_000.0))
    np.testing.assert_array_equal(read_tensors(path)["w"], np.arange(50_000.0)[::-1])
