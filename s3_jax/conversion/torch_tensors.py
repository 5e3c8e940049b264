"""Content of a PyTorch pickle: storages, tensors that view them, and permitted names."""

import math
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from s3_jax.conversion.errors import RESAVE, MalformedError, printable
from s3_jax.conversion.restricted_pickle import Builder, Inert, Opaque, put_pairs

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# dtype by the class of storage that holds it: torch.FloatStorage, torch.cuda.FloatStorage.
STORAGE_DTYPES: dict[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": BFLOAT16,
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
# These dtypes have no storage class; their tensors use untyped storages.
UNTYPED_DTYPES = {f"torch.{name}": np.dtype(name) for name in ("uint16", "uint32", "uint64")}
_TYPED_DTYPES = {f"torch.{dtype.name}": dtype for dtype in STORAGE_DTYPES.values()}
_DTYPES = {**_TYPED_DTYPES, **UNTYPED_DTYPES}
_OTHER_DTYPES = frozenset(
    f"torch.{name}"
    for name in (
        *("complex32", "complex64", "complex128", "float8_e4m3fn", "float8_e4m3fnuz"),
        *("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2"),
        *("qint8", "quint8", "qint32", "quint4x2", "quint2x4"),
    )
)
_UNTYPED_STORAGES = frozenset(
    f"torch.{name}"
    for name in ("UntypedStorage", "storage.UntypedStorage", "storage._UntypedStorage")
)

# Values that checkpoints contain besides tensors. They are ignored, never built.
_PASSED_OVER = frozenset(
    {
        *("torch.Tensor", "torch.nn.parameter.Parameter", "torch.device"),
        *("collections.Counter", "__builtin__.set", "builtins.set", "_codecs.encode"),
        *("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"),
    }
)
_UNSUPPORTED_TENSORS = {
    "torch._utils._rebuild_qtensor": "quantised",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_sparse_csr_tensor": "sparse",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._utils._rebuild_meta_tensor_no_storage": "meta (shape without values)",
    "torch._utils._rebuild_device_tensor_from_numpy": "device",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "device",
    "torch._utils._rebuild_wrapper_subclass": "wrapped",
}
_DENSE = "convert it to a dense float32 CPU tensor and save again"
_MAX_DIMENSIONS = 64
_MAX_BYTES = 2**62


@dataclass(frozen=True)
class StorageType(Inert):
    """The class of a storage; `dtype` is None for untyped bytes."""

    dtype: np.dtype[Any] | None


@dataclass(frozen=True)
class Storage(Inert):
    """Elements of a record: `numel` (bytes if untyped) of the record `key`, from element `start`.

    total: number of elements in the whole record, of which this may be a part.
    """

    key: str
    dtype: np.dtype[Any] | None
    start: int
    numel: int
    total: int

    @property
    def itemsize(self) -> int:
        """Size of an element in bytes."""
        return 1 if self.dtype is None else self.dtype.itemsize


@dataclass(frozen=True, eq=False)
class Tensor(Inert):
    """A strided view that fits its storage; offset and strides are in elements of `dtype`."""

    storage: Storage
    dtype: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def as_array(tensor: Tensor, raw: NDArray[np.uint8], byte_order: str) -> NDArray[Any]:
    """Return a tensor's values, copied only if bytes must be swapped or aligned.

    Args:
      tensor: the tensor to read.
      raw: all bytes of the record that `tensor.storage.key` names.
      byte_order: "little" or "big", the byte order of `raw`.

    Returns:
      An array of the tensor's shape and dtype in native byte order; read-only if it shares memory
        with `raw`.
    """
    if 0 in tensor.shape:
        return np.empty(tensor.shape, tensor.dtype)
    item = tensor.dtype.itemsize
    array: NDArray[Any] = np.ndarray(
        tensor.shape,
        tensor.dtype,
        buffer=raw,
        offset=tensor.storage.start * tensor.storage.itemsize + tensor.offset * item,
        strides=[stride * item for stride in tensor.strides],
    )
    if byte_order != sys.byteorder and item > 1:
        array = array.view(f"u{item}").byteswap().view(tensor.dtype)
    return np.require(array, requirements=["ALIGNED"])


class Globals:
    """Answers for the names and persistent ids in a checkpoint's pickle.

    skip_globals: names of further classes and functions to ignore.
    storages: filled with every stored record that the pickle mentions, by key.
    """

    def __init__(self, skip_globals: Collection[str] = ()):
        self._passed_over = _PASSED_OVER | frozenset(skip_globals)
        self._refused: dict[str, None] = {}
        self.storages: dict[str, Storage] = {}

    def find_global(self, name: str) -> Any:
        """Return the value for "module.name", and record unknown names for `check`."""
        if name in _BUILDERS:
            return Builder(_BUILDERS[name])
        if name in _UNSUPPORTED_TENSORS:
            kind = _UNSUPPORTED_TENSORS[name]
            raise MalformedError(f"holds a {kind} tensor ({name}), which is not supported", _DENSE)
        if name in _DTYPES:
            return _DTYPES[name]
        storage_type = _storage_type(name)
        if storage_type is not None:
            return storage_type
        if name not in self._passed_over and name not in _OTHER_DTYPES:
            self._refused[name] = None
        return Opaque(name)

    def persistent_load(self, persistent_id: Any) -> Storage:
        """Return the storage for a persistent id, which has 5 fields (6 in the legacy format)."""
        match persistent_id:
            case ("storage", StorageType() as kind, str(key), _, int(numel)) if numel >= 0:
                storage = Storage(key, kind.dtype, 0, numel, numel)
            case ("storage", StorageType() as kind, str(key), _, int(numel), view) if numel >= 0:
                storage = _storage_view(Storage(key, kind.dtype, 0, numel, numel), view)
            case ("storage", Opaque(name), *_):
                raise MalformedError(f"holds values of unsupported type {printable(name)}", _DENSE)
            case ("module", *_):
                raise MalformedError(
                    "holds a whole pickled module, which only its code can read", RESAVE
                )
            case _:
                raise MalformedError("has a malformed storage record")
        self._register(storage)
        return storage

    def _register(self, storage: Storage) -> None:
        known = self.storages.setdefault(storage.key, storage)
        if known.total * known.itemsize != storage.total * storage.itemsize:
            raise MalformedError(f"gives storage {printable(storage.key)} two sizes")

    def check(self, value: Any) -> None:
        """Raise MalformedError if the pickle used names that are neither built nor ignored.

        Args:
          value: the pickle's value. If it is such an object itself, skipping it is not suggested.
        """
        if not self._refused:
            return
        names = ", ".join(printable(name) for name in list(self._refused)[:8])
        more = len(self._refused) - 8
        skip = "pass these names in skip_globals to skip the objects"
        raise MalformedError(
            f"holds objects other than tensors, which are not loaded: {names}"
            + (f" and {more} more" if more > 0 else ""),
            RESAVE if isinstance(value, Opaque) else f"{RESAVE}, or {skip}",
        )


def _storage_type(name: str) -> Inert | None:
    """Return a StorageType, Opaque for storages of unsupported dtypes, or None for other names."""
    if name in _UNTYPED_STORAGES:
        return StorageType(None)
    module, _, kind = name.rpartition(".")
    if module not in ("torch", "torch.cuda") or not kind.endswith("Storage"):
        return None
    return StorageType(STORAGE_DTYPES[kind]) if kind in STORAGE_DTYPES else Opaque(name)


def _storage_view(root: Storage, view: Any) -> Storage:
    match view:
        case None:
            return root
        case (_, int(start), int(numel)) if start >= 0 and 0 <= numel <= root.numel - start:
            return Storage(root.key, root.dtype, start, numel, root.numel)
    raise MalformedError(f"has a view outside of its storage {printable(root.key)}")


def _tensor(storage: Any, dtype: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    """Build a tensor, and raise MalformedError unless every element is inside the storage."""
    if isinstance(dtype, Opaque):
        raise MalformedError(f"holds a tensor of unsupported dtype {printable(dtype.name)}", _DENSE)
    if not isinstance(storage, Storage) or not isinstance(dtype, np.dtype):
        raise MalformedError("has a tensor without storage or dtype")
    if not (isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise MalformedError("has a tensor whose shape, strides or offset are not counts")
    if len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS:
        raise MalformedError(f"has a tensor of {len(shape)} dimensions and {len(strides)} strides")
    if not _are_counts((offset, *shape, *strides)):
        raise MalformedError("has a tensor whose shape, strides or offset are not counts")
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize > _MAX_BYTES:
        raise MalformedError("has a tensor of impossible size")
    available = storage.numel * storage.itemsize // dtype.itemsize
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if 0 not in shape and last >= available:
        raise MalformedError(
            f"has a tensor that ends at element {last:,} of a storage of {available:,}"
        )
    # The stride of an axis with one element is never used, and may be arbitrary.
    used = tuple(step if size > 1 else 0 for size, step in zip(shape, strides, strict=True))
    return Tensor(storage, dtype, offset, shape, used)


def _are_counts(values: tuple[Any, ...]) -> bool:
    return all(type(value) is int and 0 <= value < 2**63 for value in values)


def _malformed(function: str) -> MalformedError:
    return MalformedError(f"calls {function} with arguments that PyTorch never passes")


def _rebuild_tensor(arguments: tuple[Any, ...]) -> Tensor:
    """Build a tensor from (storage, offset, shape, strides), which autograd's fields may follow."""
    match arguments:
        case (storage, offset, shape, strides, *rest) if len(rest) in (0, 2, 3):
            _refuse_lazy_bits(rest)
            return _tensor(storage, getattr(storage, "dtype", None), offset, shape, strides)
    raise _malformed("_rebuild_tensor")


def _rebuild_tensor_v3(arguments: tuple[Any, ...]) -> Tensor:
    match arguments:
        case (storage, offset, shape, strides, _, _, dtype, *rest) if len(rest) <= 1:
            _refuse_lazy_bits([None, None, *rest])
            return _tensor(storage, dtype, offset, shape, strides)
    raise _malformed("_rebuild_tensor_v3")


def _refuse_lazy_bits(rest: list[Any]) -> None:
    """Raise MalformedError for a tensor with a pending negation or conjugation."""
    metadata = rest[2] if len(rest) > 2 else None
    if isinstance(metadata, dict) and any(metadata.get(bit) for bit in ("neg", "conj")):
        raise MalformedError("holds a lazily negated tensor", "save tensor.resolve_neg() instead")


def _rebuild_parameter(arguments: tuple[Any, ...]) -> Tensor:
    match arguments:
        case (Tensor() as data, _, _, *rest) if len(rest) <= 1:
            return data
    raise _malformed("_rebuild_parameter")


def _rebuild_from_type(arguments: tuple[Any, ...]) -> Tensor:
    """Build a tensor with attributes from (builder, class, arguments, attributes)."""
    match arguments:
        case (Builder(build), Inert(), tuple(inner), _) if build in _TENSOR_BUILDERS:
            return build(inner)
    raise _malformed("_rebuild_from_type_v2")


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """Build a dictionary. Python 3 sets its items later; Python 2 passed a list of pairs."""
    result: dict[Any, Any] = {}
    match arguments:
        case ():
            return result
        case ([*pairs],) if all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
            put_pairs(result, pairs)
            return result
    raise _malformed("OrderedDict")


def _size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    match arguments:
        case (list() | tuple() as values,):
            return tuple(values)
    raise _malformed("torch.Size")


_TENSOR_BUILDERS = (_rebuild_tensor, _rebuild_tensor_v3, _rebuild_parameter)
_BUILDERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
}
