"""Reader of safetensors files; arrays are views of the memory-mapped file."""

import os
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from s3_jax.conversion.errors import MalformedError, printable
from s3_jax.conversion.torch_tensors import BFLOAT16

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_MAX_DIMENSIONS = 64  # NumPy's limit


def read_safetensors(
    path: str | os.PathLike[str], data: NDArray[np.uint8]
) -> dict[str, NDArray[Any]]:
    """Read the arrays of a safetensors file, by key.

    The library checks the header, and that tensors follow each other without gaps or overlaps up to
    the end of the file. Their order and sizes therefore determine their positions.

    Args:
      path: the file.
      data: the same file's bytes.

    Raises:
      MalformedError: the file is damaged or has an unsupported dtype.
    """
    position = 8 + int.from_bytes(data[:8].tobytes(), "little")
    arrays = {}
    try:
        with safetensors.safe_open(path, framework="np") as file:
            for key in file.offset_keys():
                entry = file.get_slice(key)
                array = _view(data, position, key, entry.get_dtype(), entry.get_shape())
                arrays[key] = np.require(array, requirements=["ALIGNED"])
                position += array.nbytes
    except safetensors.SafetensorError as error:
        raise MalformedError(
            f"is not a valid safetensors file ({printable(str(error))})"
        ) from error
    return arrays


def _view(
    data: NDArray[np.uint8], position: int, key: str, dtype_name: str, shape: list[int]
) -> NDArray[Any]:
    if dtype_name not in DTYPES:
        raise MalformedError(
            f"holds tensor {printable(key)} of unsupported dtype {printable(dtype_name)}",
            "convert it to float32 and save again",
        )
    dtype = DTYPES[dtype_name]
    if len(shape) > _MAX_DIMENSIONS or max(shape, default=0) > data.size:
        # Only an empty tensor can have such a shape, and it is useless.
        raise MalformedError(f"holds tensor {printable(key)} of impossible shape {shape[:8]}")
    end = position + int(np.prod(shape, dtype=object)) * dtype.itemsize
    return data[position:end].view(dtype).reshape(shape)
