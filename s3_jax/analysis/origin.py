"""Origins of instructions in the project: pass, module and source location."""

import dataclasses
import re
from collections.abc import Iterator

from s3_jax.analysis.arithmetic import MATRIX_OPCODES
from s3_jax.analysis.hlo import Computation, Instruction, Program

_PACKAGE = re.compile(r"(?:.*/)?(s3_jax/.*)$")
# Components of a path that describe how something was traced, not where it belongs.
_MACHINERY = re.compile(
    r"^(jit\(.*\)|pjit|shard_map|while|body|cond|closed_call|branch_\d+_fun|checkpoint|remat\d*|"
    r"rematted_computation|custom_jvp_call|custom_vjp_call.*|vmap\(.*\)|jvp\(.*\)|"
    r"transpose\(.*\)|scan|main)$"
)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Origin of an instruction.

    direction: "forward", "backward" or "again" (recomputed for the backward pass).
    module: path of Flax modules and methods, or the source location if there is none.
    source: "file:line function" of the innermost location in the project.
    """

    direction: str
    module: str
    source: str


def origin_of(instruction: Instruction, computation: Computation, program: Program) -> Origin:
    """Return the origin of an instruction or, if it was lost, of its parts and operands."""
    best = Origin("forward", "", "")
    for one in _relatives(instruction, computation, program):
        found = _own_origin(one, program)
        if found.module.startswith(("S3.", "S3/")):
            return found
        best = best if best.module else found
    return best


def _own_origin(instruction: Instruction, program: Program) -> Origin:
    steps = instruction.op_name.split("/")
    modules = [step for step in steps[:-1] if step and not _MACHINERY.match(step)]
    source = _source(instruction, program)
    return Origin(_direction(instruction.op_name), "/".join(_short(modules)) or source, source)


def _relatives(
    instruction: Instruction, computation: Computation, program: Program
) -> Iterator[Instruction]:
    """Yield the instruction, the ones fused into it (matrix products first), and its operands."""
    yield instruction
    for role, name in instruction.called:
        if role == "calls":
            inside = program.computations[name].instructions.values()
            yield from sorted(inside, key=lambda one: one.opcode not in MATRIX_OPCODES)
    for name in instruction.operands:
        operand = computation.instructions.get(name)
        if operand is not None and operand.opcode != "parameter":
            yield operand


def _direction(op_name: str) -> str:
    if "rematted_computation" in op_name:
        return "again"
    return "backward" if "transpose(" in op_name else "forward"


def _short(modules: list[str]) -> list[str]:
    """Shorten a module path by leaving out a module's own private methods."""
    kept: list[str] = []
    for step in modules:
        owner, _, method = step.partition(".")
        if kept and owner == kept[-1] and method.startswith("_"):
            continue
        kept.append(step)
    return kept


def _source(instruction: Instruction, program: Program) -> str:
    for source in program.sources.get(instruction.frame, ()):
        found = _PACKAGE.match(source.file)
        if found and "site-packages" not in source.file:
            return f"{found.group(1)}:{source.line} {source.function}"
    return ""
