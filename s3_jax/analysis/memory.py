"""Memory of a compiled program on a device, from its statistics or an out-of-memory message."""

import dataclasses
import re
from typing import Any

from s3_jax.analysis.costs import FREE
from s3_jax.analysis.execution import executions
from s3_jax.analysis.hlo import Program
from s3_jax.analysis.origin import Origin, origin_of

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_USED = re.compile(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm")
_TEMPORARIES = re.compile(r"required for HLO temporaries \(([\d.]+)([KMGT]?)\)")


@dataclasses.dataclass(frozen=True)
class MemoryUse:
    """Bytes on every device.

    held: data kept between steps, by name.
    padding: bytes that the layout adds to the held data.
    temporaries: activations and everything else that lives within a step.
    code: the program.
    """

    held: dict[str, int]
    padding: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return sum(self.held.values()) + self.padding + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class Buffer:
    """One array that a program writes."""

    shape: str
    bytes: float
    origin: Origin


def memory_use(statistics: Any, held: dict[str, int]) -> MemoryUse:
    """Return the memory use of a compiled program.

    Args:
      statistics: from `jax.stages.Compiled.memory_analysis`.
      held: bytes of data kept between steps, by name.
    """
    own_results = statistics.output_size_in_bytes - statistics.alias_size_in_bytes
    return MemoryUse(
        held=held,
        padding=max(0, statistics.argument_size_in_bytes - sum(held.values())),
        temporaries=statistics.temp_size_in_bytes + own_results,
        code=statistics.generated_code_size_in_bytes,
    )


def needed_bytes(message: str, held: dict[str, int]) -> int | None:
    """Return the bytes that a program needs, from an out-of-memory message; None for other errors.

    Args:
      held: bytes of data kept between steps, which some messages leave out.
    """
    if found := _USED.search(message):
        return _bytes(*found.groups())
    if found := _TEMPORARIES.search(message):
        return _bytes(*found.groups()) + sum(held.values())
    return None


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])


def largest_buffers(program: Program, count: int) -> list[Buffer]:
    """Return the largest arrays in main memory, one for every shape and origin."""
    found: dict[tuple[str, Origin], float] = {}
    for name in executions(program):
        computation = program.computations[name]
        for instruction in computation.instructions.values():
            if instruction.opcode in FREE or instruction.opcode.endswith("-start"):
                continue
            for shape in instruction.shapes:
                if shape.in_main_memory:
                    key = str(shape), origin_of(instruction, computation, program)
                    found[key] = max(found.get(key, 0.0), shape.stored_bytes)
    buffers = [Buffer(shape, size, where) for (shape, where), size in found.items()]
    return sorted(buffers, key=lambda one: -one.bytes)[:count]
