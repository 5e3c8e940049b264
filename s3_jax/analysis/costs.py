"""Cost of every instruction of a program: arithmetic, memory traffic, traffic between chips.

    time >= max(FLOPs / peak, bytes / bandwidth), summed over instructions   (roofline)

The compiler's own estimates, in cycles, are included too. Unlike the roofline, they account for the
shapes of the matrix units and for instructions that move single numbers.
"""

import dataclasses
from collections.abc import Iterable, Iterator

from s3_jax.analysis.arithmetic import matrix_flops
from s3_jax.analysis.chips import Chip
from s3_jax.analysis.execution import Execution, executions
from s3_jax.analysis.hlo import Computation, Instruction, Program
from s3_jax.analysis.hlo_shapes import ArrayShape
from s3_jax.analysis.origin import Origin, origin_of

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# Instructions that only refer to existing data, or whose work is counted elsewhere.
FREE = frozenset(
    (
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
        *("while", "conditional", "call", "copy-done", "slice-done", "async-done"),
        *("partition-id", "replica-id", "opt-barrier"),
    )
)
_SLICING = ("dynamic-slice", "slice", "gather")


@dataclasses.dataclass(frozen=True)
class Cost:
    """Total cost of an instruction over all rounds.

    bytes: read from and written to main memory.
    link_bytes: bytes that a collective reduces or sends.
    cycles: the compiler's estimate.
    in_branch: True if it runs only under a condition.
    """

    name: str
    opcode: str
    origin: Origin
    rounds: float
    in_branch: bool
    flops: float
    bytes: float
    link_bytes: float
    cycles: float

    def seconds(self, chip: Chip, devices: int) -> float:
        """Return a lower bound from peak arithmetic and bandwidth, or a collective's link time."""
        if self.link_bytes:
            return link_seconds(self.link_bytes, chip, devices)
        return max(self.flops / chip.peak_flops, self.bytes / chip.hbm_bandwidth)


def link_seconds(size: float, chip: Chip, devices: int) -> float:
    """Return the time of a ring all-reduce.

    Every chip sends and receives almost twice the array.
    """
    return 2 * size * (devices - 1) / devices / chip.link_bandwidth


def costs(program: Program) -> list[Cost]:
    """Return the costs of all instructions that run, in no particular order."""
    found = []
    runs = executions(program)
    for name, execution in runs.items():
        computation = program.computations[name]
        for instruction in computation.instructions.values():
            if instruction.opcode in FREE or _is_placeholder(instruction):
                continue
            link = _link_bytes(instruction, computation)
            cost = Cost(
                name=instruction.name,
                opcode=instruction.opcode,
                origin=_origin(instruction, computation, program, runs),
                rounds=execution.rounds,
                in_branch=execution.in_branch,
                flops=execution.rounds * _flops(instruction, computation, program),
                bytes=execution.rounds * _traffic(instruction, computation, program),
                link_bytes=execution.rounds * link,
                cycles=execution.rounds * instruction.cycles,
            )
            found.append(cost)
    return found


def _origin(
    instruction: Instruction,
    computation: Computation,
    program: Program,
    runs: dict[str, Execution],
) -> Origin:
    """Return the origin of an instruction, or else of the loop that contains it."""
    found = origin_of(instruction, computation, program)
    caller = runs[computation.name].caller
    while not found.module and caller is not None:
        computation, loop = caller
        found = origin_of(loop, computation, program)
        caller = runs[computation.name].caller
    return found


def fused(instruction: Instruction, program: Program) -> Iterator[Computation]:
    """Yield the computation inside a fusion, and those of nested fusions."""
    for role, name in instruction.called:
        if role == "calls":
            inside = program.computations[name]
            yield inside
            for one in inside.instructions.values():
                yield from fused(one, program)


def _flops(instruction: Instruction, computation: Computation, program: Program) -> float:
    total = matrix_flops(instruction, computation)
    for part in fused(instruction, program):
        total += sum(matrix_flops(one, part) for one in part.instructions.values())
    return total


def _traffic(instruction: Instruction, computation: Computation, program: Program) -> float:
    """Return the bytes of operands and results in main memory."""
    inside = next(fused(instruction, program), None)
    read = 0.0
    for number, name in enumerate(instruction.operands):
        operand = computation.instructions.get(name)
        if operand is None:
            continue
        whole = _main_memory(operand)
        part = _part_read(inside, number) if inside else _own_part(instruction, number)
        read += whole if part is None else min(whole, part)
    return read + _written(instruction, computation, inside)


def _written(
    instruction: Instruction, computation: Computation, inside: Computation | None
) -> float:
    """Return the bytes of the result; for an in-place update, only those of the update."""
    result = _main_memory(instruction)
    root, home = (inside.root, inside) if inside else (instruction, computation)
    if root.opcode == "dynamic-update-slice":
        update = home.instructions.get(root.operands[1])
        if update is not None:
            return min(result, _stored(update.shapes))
    return result


def _part_read(inside: Computation, number: int) -> float | None:
    """Return the bytes that a fusion reads of an operand if it only reads slices, else None."""
    name = next(
        (one.name for one in inside.instructions.values()
         if one.opcode == "parameter" and one.literal == str(number)), None,
    )  # fmt: skip
    users = [one for one in inside.instructions.values() if name in one.operands]
    total = 0.0
    for user in users:
        if user.opcode in _SLICING and user.operands[0] == name:
            total += _stored(user.shapes)
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != name:
            return None  # an update in place reads nothing
    return total if users else 0.0


def _own_part(instruction: Instruction, number: int) -> float | None:
    """Compute `_part_read` for an instruction that is not a fusion."""
    if number == 0 and instruction.opcode in _SLICING:
        return _stored(instruction.shapes)
    if number == 0 and instruction.opcode == "dynamic-update-slice":
        return 0.0
    return None


def _main_memory(instruction: Instruction) -> float:
    shapes = instruction.shapes
    if instruction.opcode.endswith("-start"):  # its shapes are (source, result, flags)
        shapes = shapes[1:2]
    return _stored(shape for shape in shapes if shape.in_main_memory)


def _stored(shapes: Iterable[ArrayShape]) -> float:
    return sum((shape.stored_bytes for shape in shapes), 0.0)


def _link_bytes(instruction: Instruction, computation: Computation) -> float:
    if instruction.opcode.removesuffix("-start") not in COLLECTIVES:
        return 0.0
    operands = [computation.instructions.get(name) for name in instruction.operands]
    return sum((shape.logical_bytes for one in operands if one for shape in one.shapes), 0.0)


def _is_placeholder(instruction: Instruction) -> bool:
    """Return True for custom calls that the compiler uses only to mark memory."""
    return instruction.opcode == "custom-call" and (
        "AllocateBuffer" in instruction.text or "ConcatBitcast" in instruction.text
    )
