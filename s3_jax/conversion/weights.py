"""Conversion of PyTorch state dicts to Flax variables and back, using every tensor exactly once."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from s3_jax.config import ModelConfig
from s3_jax.conversion.errors import ConversionError
from s3_jax.conversion.names import entries, position_buffers, unused_tensors
from s3_jax.models.positional import inverse_frequencies
from s3_jax.models.shape_cache import network_shapes
from s3_jax.models.variables import Variables, flatten

Tensors = Mapping[str, np.ndarray]


class Move(NamedTuple):
    """Rearrangement of one tensor's axes from PyTorch to Flax and back."""

    to_flax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


class Leaf(NamedTuple):
    """One tensor of a kind: suffix of its PyTorch key, Flax collection and name, and its move."""

    torch: str
    collection: str
    flax: str
    move: Move


class Pair(NamedTuple):
    """One PyTorch key and the Flax leaf it fills."""

    key: str
    collection: str
    path: str
    move: Move


def _transposed(*axes: int) -> Move:
    back = tuple(int(i) for i in np.argsort(axes))
    return Move(lambda x: x.transpose(axes), lambda x: x.transpose(back))


SAME = Move(lambda x: x, lambda x: x)
VECTOR = Move(lambda x: x[0, 0], lambda x: x[None, None])
COUNT = Move(lambda x: x.astype(np.int32), lambda x: x.astype(np.int64))
MATRIX = _transposed(1, 0)
CONV_1X1 = Move(lambda x: x[:, :, 0, 0].T, lambda x: x.T[:, :, None, None])
DEPTHWISE = Move(lambda x: x[:, 0].transpose(1, 2, 0), lambda x: x.transpose(2, 0, 1)[:, None])


def _kernel(move: Move, bias: bool = True) -> list[Leaf]:
    leaves = [Leaf(".weight", "params", "/kernel", move)]
    return [*leaves, Leaf(".bias", "params", "/bias", SAME)] if bias else leaves


_NORM = [
    Leaf(".weight", "params", "/scale", SAME),
    Leaf(".bias", "params", "/bias", SAME),
]
KINDS: dict[str, list[Leaf]] = {
    "tensor": [Leaf("", "params", "", SAME)],
    "vector": [Leaf("", "params", "", VECTOR)],
    "linear": _kernel(MATRIX),
    "conv": _kernel(_transposed(2, 3, 1, 0)),
    "conv_no_bias": _kernel(_transposed(2, 3, 1, 0), bias=False),
    "kernel": [Leaf("", "params", "", _transposed(2, 3, 1, 0))],
    "depthwise_kernel": [Leaf("", "params", "", DEPTHWISE)],
    "conv1x1": _kernel(CONV_1X1),
    "conv1x1_no_bias": _kernel(CONV_1X1, bias=False),
    "upsample": _kernel(_transposed(2, 3, 0, 1)),
    "depthwise": _kernel(DEPTHWISE),
    "layer_norm": _NORM,
    "batch_norm": [
        *_NORM,
        Leaf(".running_mean", "batch_stats", "/mean", SAME),
        Leaf(".running_var", "batch_stats", "/var", SAME),
        Leaf(".num_batches_tracked", "batch_stats", "/count", COUNT),
    ],
    "attention": [
        Leaf(".in_proj_weight", "params", "/in_kernel", MATRIX),
        Leaf(".in_proj_bias", "params", "/in_bias", SAME),
        Leaf(".out_proj.weight", "params", "/out_kernel", MATRIX),
        Leaf(".out_proj.bias", "params", "/out_bias", SAME),
    ],
}


def pairs(config: ModelConfig) -> Iterator[Pair]:
    """Yield every PyTorch key of a network with these settings, and the Flax leaf it fills."""
    for entry in entries(config):
        for leaf in KINDS[entry.kind]:
            yield Pair(entry.torch + leaf.torch, leaf.collection, entry.flax + leaf.flax, leaf.move)


def torch_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the published code's state dict for this network, by PyTorch key."""
    shapes = network_shapes(config)
    found = {
        p.key: p.move.to_torch(_placeholder(shapes[p.collection][p.path])).shape
        for p in pairs(config)
    }
    found |= {key: inverse_frequencies(config.width).shape for key in position_buffers()}
    return found | {key: shape for key, (shape, _) in unused_tensors(config).items()}


def from_torch(tensors: Tensors, config: ModelConfig) -> Variables:
    """Convert a PyTorch state dict to Flax variables of the network `config`.

    Returns:
      {"params": ..., "batch_stats": ..., "unused": {torch key: tensor}}, nested dictionaries of
      NumPy arrays. "unused" has the tensors that checkpoints contain but no output uses.

    Raises:
      ConversionError: keys are missing, left over, or of the wrong shape; all are listed.
    """
    tensors = _with_counters(tensors, config)
    problems = _compare(torch_shapes(config), {k: np.shape(v) for k, v in tensors.items()})
    problems += _wrong_constants(tensors, config)
    problems += not_finite(tensors)
    if problems:
        raise ConversionError(_report(problems))
    variables: Variables = {"params": {}, "batch_stats": {}}
    for pair in pairs(config):
        value = np.asarray(pair.move.to_flax(np.asarray(tensors[pair.key])), order="C")
        _insert(variables[pair.collection], pair.path, value)
    variables["unused"] = {key: np.asarray(tensors[key]) for key in unused_tensors(config)}
    return variables


def to_torch(variables: Variables, config: ModelConfig) -> dict[str, np.ndarray]:
    """Convert Flax variables to a PyTorch state dict with the published code's names.

    Raises:
      ConversionError: variables are missing, left over, or of the wrong shape; all are listed.
    """
    given = {name: flatten(variables.get(name, {})) for name in ("params", "batch_stats")}
    expected = network_shapes(config)
    problems = []
    for name in expected:
        found = {f"{name}/{k}": np.shape(v) for k, v in given[name].items()}
        problems += _compare({f"{name}/{k}": v for k, v in expected[name].items()}, found)
    if problems:
        raise ConversionError(_report(problems))
    tensors = {
        p.key: np.asarray(p.move.to_torch(np.asarray(given[p.collection][p.path])), order="C")
        for p in pairs(config)
    }
    tensors |= {key: inverse_frequencies(config.width) for key in position_buffers()}
    stored = variables.get("unused", {})
    for key, (shape, default) in unused_tensors(config).items():
        tensors[key] = np.asarray(stored.get(key, np.full(shape, default, np.float32)))
    return tensors


def _insert(tree: dict[str, Any], path: str, value: np.ndarray) -> None:
    *parents, name = path.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[name] = value


def _placeholder(shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(np.float32(0), shape)


def _compare(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> list[str]:
    problems = [f"missing: {key} {shape}" for key, shape in expected.items() if key not in found]
    problems += [f"unknown: {key} {shape}" for key, shape in found.items() if key not in expected]
    for key, shape in expected.items():
        if key in found and found[key] != shape:
            problems.append(f"wrong shape: {key} is {found[key]}, the network needs {shape}")
    return problems


def _wrong_constants(tensors: Tensors, config: ModelConfig) -> list[str]:
    """Return a problem for each frequency table that differs from ours by more than rounding."""
    expected = inverse_frequencies(config.width)
    # A half-precision file holds the rounded table.
    tables = [expected.astype(kind).astype(np.float32) for kind in _TABLE_PRECISIONS]
    return [
        f"wrong values: {key} is not the network's frequency table, whose temperature is 128"
        for key in position_buffers()
        if key in tensors
        and np.shape(tensors[key]) == expected.shape
        and not any(
            np.allclose(np.asarray(tensors[key], np.float32), table, rtol=1e-5, atol=0)
            for table in tables
        )
    ]


_TABLE_PRECISIONS = (np.float32, np.float16, ml_dtypes.bfloat16)


def not_finite(tensors: Tensors) -> list[str]:
    """Return a problem for each tensor that contains NaN or infinity."""
    return [
        f"not finite: {key} has NaN or infinite values, as after a diverged training run: use an "
        "earlier checkpoint"
        for key, value in tensors.items()
        if _is_floating(value) and not np.isfinite(np.asarray(value, np.float32)).all()
    ]


def _is_floating(value: np.ndarray) -> bool:
    kind = np.asarray(value).dtype
    return np.issubdtype(kind, np.floating) or kind.name == "bfloat16"


def _with_counters(tensors: Tensors, config: ModelConfig) -> Tensors:
    """Add the step counters of batch normalization if a file has none; nothing else uses them."""
    missing = [
        p.key for p in pairs(config)
        if p.key.endswith(".num_batches_tracked") and p.key not in tensors
    ]  # fmt: skip
    counters = [key for key in tensors if key.endswith(".num_batches_tracked")]
    if counters or not missing:
        return tensors
    return {**tensors, **dict.fromkeys(missing, np.zeros((), np.int64))}


def _report(problems: list[str]) -> str:
    shown = 40
    more = [f"... and {len(problems) - shown} more"] if len(problems) > shown else []
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return "\n  ".join(
        [f"the state dict does not fit the network ({count}):", *problems[:shown], *more]
    )
