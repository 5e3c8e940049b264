"""Execution counts of a program's computations; loop bodies count once per round.

Each branch of a conditional counts as if it ran whenever the conditional does. The costs of a
branch that is taken only sometimes (the memory frame of a video) are upper bounds, marked as such.
"""

import dataclasses
import re

from s3_jax.analysis.hlo import Computation, Instruction, Program

_TRIP_COUNT = re.compile(r'known_trip_count"?:\s*\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Execution:
    """Execution count of a computation.

    rounds: how often it runs.
    in_branch: True inside a conditional.
    caller: the loop or conditional that runs it, and the computation containing that instruction.
    """

    rounds: float
    in_branch: bool
    caller: tuple[Computation, Instruction] | None = None


def executions(program: Program) -> dict[str, Execution]:
    """Return the executions of computations that do not run inside a fusion or reduction."""
    found: dict[str, Execution] = {}
    pending = [(program.entry, Execution(1.0, False))]
    while pending:
        name, run = pending.pop()
        before = found.get(name, Execution(0.0, True))
        in_branch = before.in_branch and run.in_branch
        found[name] = Execution(before.rounds + run.rounds, in_branch, run.caller)
        computation = program.computations[name]
        for one in computation.instructions.values():
            for called, times, branch in _runs(program, computation, one):
                inner = Execution(run.rounds * times, run.in_branch or branch, (computation, one))
                pending.append((called, inner))
    return found


def _runs(
    program: Program, computation: Computation, instruction: Instruction
) -> list[tuple[str, float, bool]]:
    """Return the computations that an instruction runs, their counts, and True for branches."""
    if instruction.opcode == "while":
        rounds = trip_count(program, computation, instruction)
        return [(name, float(rounds), False) for role, name in instruction.called if role == "body"]
    if instruction.opcode == "conditional":
        return [(name, 1.0, True) for _, name in instruction.called]
    if instruction.opcode == "call" or instruction.opcode.startswith("async-start"):
        return [(name, 1.0, False) for _, name in instruction.called]
    return []


def trip_count(program: Program, computation: Computation, loop: Instruction) -> int:
    """Return the number of rounds of a loop that counts up from 0; 1 if it cannot be determined."""
    if found := _TRIP_COUNT.search(loop.text):
        return int(found.group(1))
    condition = program.computations[dict(loop.called)["condition"]]
    return _bound(condition) or _bound_from_start(computation, loop, condition) or 1


def _bound(condition: Computation) -> int | None:
    """Return the constant with which the counter is compared."""
    compared = [condition.instructions.get(name) for name in condition.root.operands]
    for one in compared:
        if one is not None and one.opcode == "constant" and one.literal.isdigit():
            return int(one.literal)
    return None


def _bound_from_start(
    computation: Computation, loop: Instruction, condition: Computation
) -> int | None:
    """Return the loop's initial value that its counter is compared with, if it is a constant."""
    start = computation.instructions.get(loop.operands[0])
    if start is None or start.opcode != "tuple":
        return None
    for name in condition.root.operands:
        place = condition.instructions.get(name)
        index = re.search(r"\bindex=(\d+)", place.text) if place else None
        if index and int(index.group(1)) < len(start.operands):
            value = computation.instructions.get(start.operands[int(index.group(1))])
            while value is not None and value.opcode in ("copy", "bitcast"):
                value = computation.instructions.get(value.operands[0])
            if value is not None and value.opcode == "constant" and value.literal.isdigit():
                bound = int(value.literal)
                if bound > 0:
                    return bound
    return None
