"""FLOPs of matrix products and convolutions in a compiled program."""

import functools
import math
import re

from s3_jax.analysis.hlo import Computation, Instruction
from s3_jax.analysis.hlo_shapes import ArrayShape

_WINDOW = re.compile(r"\bwindow=\{([^}]*)\}")
_LABELS = re.compile(r"\bdim_labels=([\w?]+)_([\w?]+)->([\w?]+)")
_BATCH_GROUPS = re.compile(r"\bbatch_group_count=(\d+)")
_CONTRACTED = re.compile(r"\blhs_contracting_dims=\{([\d,]*)\}")
MATRIX_OPCODES = ("dot", "convolution")


def matrix_flops(instruction: Instruction, computation: Computation) -> float:
    """Return the FLOPs (two per multiplication) of a dot or convolution, else 0."""
    if instruction.opcode not in MATRIX_OPCODES:
        return 0.0
    left, right = (computation.instructions[name].shapes[0] for name in instruction.operands[:2])
    if instruction.opcode == "dot":
        return _dot_flops(instruction, left)
    return _convolution_flops(instruction, left, right)


def _dot_flops(instruction: Instruction, left: ArrayShape) -> float:
    found = _CONTRACTED.search(instruction.text)
    axes = [int(axis) for axis in found.group(1).split(",") if axis] if found else []
    return 2.0 * instruction.shapes[0].size * math.prod(left.dims[axis] for axis in axes)


def _convolution_flops(instruction: Instruction, left: ArrayShape, right: ArrayShape) -> float:
    """Count FLOPs, excluding kernel positions in the padding or between dilated entries.

    This matters because the TPU compiler writes batched matrix products as convolutions over axes
    in which all positions except one are padding.
    """
    labels = _LABELS.search(instruction.text)
    if labels is None:
        return 0.0
    of_input, of_kernel, of_output = labels.groups()
    window = _window(instruction.text)
    output = instruction.shapes[0]
    count = 2.0 * output.dims[of_output.index("b")] * output.dims[of_output.index("f")]
    count *= right.dims[of_kernel.index("i")]
    for number, axis in enumerate(sorted(set(of_output) - {"b", "f"})):
        count *= _valid_pairs(
            left.dims[of_input.index(axis)],
            right.dims[of_kernel.index(axis)],
            output.dims[of_output.index(axis)],
            *(values[number] if number < len(values) else default for values, default in window),
        )
    groups = _BATCH_GROUPS.search(instruction.text)
    return count / (int(groups.group(1)) if groups else 1)


@functools.lru_cache(maxsize=4096)
def _valid_pairs(
    size: int, kernel: int, output: int, stride: int, pad: int, dilation: int, kernel_dilation: int
) -> int:
    """Count the pairs of an output and a kernel position that meet an entry of the input."""
    extent = (size - 1) * dilation + 1
    if stride == 1 and dilation == 1 and kernel_dilation == 1:
        starts = range(-pad, output - pad)
        return sum(max(0, min(start + kernel, size) - max(start, 0)) for start in starts)
    places = (
        position * stride + tap * kernel_dilation - pad
        for position in range(output)
        for tap in range(kernel)
    )
    return sum(0 <= place < extent and place % dilation == 0 for place in places)


def _window(text: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Return values and defaults of stride, low padding, and dilation of input and kernel."""
    found = _WINDOW.search(text)
    parts = dict(part.split("=") for part in found.group(1).split()) if found else {}

    def values(name: str) -> tuple[int, ...]:
        """Parse the numbers of one field of the window; () if it has none."""
        return tuple(int(n.split("_")[0]) for n in parts[name].split("x")) if name in parts else ()

    return ((values("stride"), 1), (values("pad"), 0), (values("lhs_dilate"), 1),
            (values("rhs_dilate"), 1))  # fmt: skip
