"""Instructions that may slow a step down.

These hazards are gathers, scatters, sorts, long loops of small rounds, dynamic shapes, and calls to
the host.
"""

import dataclasses
from collections.abc import Iterable, Iterator

from s3_jax.analysis.costs import fused
from s3_jax.analysis.execution import executions, trip_count
from s3_jax.analysis.hlo import Computation, Instruction, Program
from s3_jax.analysis.origin import Origin, origin_of

# More rounds suggest that the compiler processes numbers one at a time.
LONG_LOOP = 64
_HOST = ("infeed", "outfeed", "send", "recv")


@dataclasses.dataclass(frozen=True)
class Hazard:
    """Hazards of the same kind in the same place.

    kind: such as "gather".
    count: number of different instructions.
    rounds: how often they run in total.
    example: shape of the largest result among them.
    """

    kind: str
    origin: Origin
    count: int
    rounds: float
    example: str


def hazards(program: Program) -> list[Hazard]:
    """Return all hazards, grouped by kind and module, the most frequent first."""
    groups: dict[tuple[str, Origin], list[tuple[float, Instruction]]] = {}
    for kind, where, rounds, instruction in _suspects(program):
        groups.setdefault((kind, where), []).append((rounds, instruction))
    found = [_summary(kind, where, members) for (kind, where), members in groups.items()]
    return sorted(found, key=lambda one: (-one.rounds, one.kind, one.origin.module))


def _suspects(program: Program) -> Iterator[tuple[str, Origin, float, Instruction]]:
    for name, execution in executions(program).items():
        computation = program.computations[name]
        for instruction in computation.instructions.values():
            if instruction.opcode == "while":
                rounds = trip_count(program, computation, instruction)
                if rounds > LONG_LOOP:
                    where = origin_of(instruction, computation, program)
                    yield f"loop of {rounds}", where, execution.rounds * rounds, instruction
            for home, one in _inside(instruction, computation, program):
                if kind := hazard_kind(one):
                    yield kind, origin_of(one, home, program), execution.rounds, one


def _inside(
    instruction: Instruction, computation: Computation, program: Program
) -> Iterator[tuple[Computation, Instruction]]:
    yield computation, instruction
    for part in fused(instruction, program):
        for one in part.instructions.values():
            yield part, one


def hazard_kind(instruction: Instruction) -> str:
    """Return the kind of hazard, or "" for a harmless instruction."""
    opcode = instruction.opcode
    if opcode in ("gather", "scatter", "sort", "topk"):
        return opcode
    if opcode.removesuffix("-done") in _HOST or (
        opcode == "custom-call" and "callback" in instruction.text.lower()
    ):
        return "host"
    if opcode == "custom-call" and '"TopK"' in instruction.text:
        return "sort"
    if any(shape.dynamic for shape in instruction.shapes) and opcode != "parameter":
        return "dynamic shape"
    return ""


def _summary(kind: str, where: Origin, members: Iterable[tuple[float, Instruction]]) -> Hazard:
    members = list(members)
    _, largest = max(members, key=lambda one: sum(shape.size for shape in one[1].shapes))
    shapes = ", ".join(str(shape) for shape in largest.shapes[:2])
    return Hazard(kind, where, len(members), sum(rounds for rounds, _ in members), shapes)
