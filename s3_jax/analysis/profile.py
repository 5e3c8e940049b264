"""Profile of a program on this machine: its instructions' times, summed by module.

XLA's tracer reports when every instruction ran. The text of the compiled program names the module
in which it was traced. Times are those of the threads that ran the instructions: if instructions
run in parallel, their sum exceeds the elapsed time.
"""

import dataclasses
import gzip
import importlib.metadata
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from s3_jax.analysis.costs import FREE
from s3_jax.analysis.estimate import module_of
from s3_jax.analysis.hlo import Computation, Instruction, Program, parse_program
from s3_jax.analysis.origin import origin_of
from s3_jax.errors import InputError

# With another version (seen with 0.0.52), tracing kills the process without a message.
LIBTPU = "0.0.42.1"


@dataclasses.dataclass(frozen=True)
class Place:
    """A module in one direction ("forward", "backward", "again") and its part of a run.

    share: share of all instructions' time.
    instructions: number of instructions that ran.
    """

    module: str
    direction: str
    seconds: float
    share: float
    instructions: float


def profile(compiled: Any, args: tuple, runs: int = 3) -> list[Place]:
    """Return the places of a run, most expensive first, averaged over runs after the first.

    Args:
      compiled: a `jax.stages.Compiled` that does not donate its arguments.

    Raises:
      InputError: the installed libtpu does not support traces.
      ValueError: this backend's traces do not name instructions.
    """
    _check_libtpu()
    jax.block_until_ready(compiled(*args))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(runs):
                jax.block_until_ready(compiled(*args))
        times = list(_instruction_times(Path(folder)))
    if not times:
        raise ValueError(f"traces of {jax.default_backend()} do not name instructions")
    return _places(times, parse_program(compiled.as_text()), runs)


def table(places: list[Place]) -> list[str]:
    """Format one line for every place."""
    lines = []
    for place in places:
        again = "" if place.direction == "forward" else f" ({place.direction})"
        lines.append(f"  {1e3 * place.seconds:10.1f} ms {place.share:4.0%}"
                     f"{place.instructions:6.0f} instructions  {place.module}{again}")  # fmt: skip
    return lines


def _check_libtpu() -> None:
    try:
        installed = importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        return
    if installed != LIBTPU:
        raise InputError(
            f"profiles need libtpu {LIBTPU} (or none), but {installed} is installed, whose "
            f"profiler terminates the process; run pip install libtpu=={LIBTPU}"
        )


def _instruction_times(folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the name and seconds of everything that ran."""
    for path in folder.rglob("*.trace.json.gz"):
        with gzip.open(path, "rt") as file:
            events = json.load(file)["traceEvents"]
        for event in events:
            name = event.get("args", {}).get("hlo_op")
            if event.get("ph") == "X" and name:
                yield name, event["dur"] * 1e-6


def _places(times: list[tuple[str, float]], program: Program, runs: int) -> list[Place]:
    known = _by_name(program)
    sums: dict[tuple[str, str], tuple[float, int]] = {}
    for name, seconds in times:
        # Skip loops and conditionals, whose bodies are listed separately.
        if name not in known or known[name][0].opcode in FREE:
            continue
        module, origin = module_of(origin_of(*known[name], program))
        before = sums.get((module, origin.direction), (0.0, 0))
        sums[module, origin.direction] = before[0] + seconds, before[1] + 1
    total = sum(seconds for seconds, _ in sums.values())
    places = [
        Place(module, direction, seconds / runs, seconds / total, count / runs)
        for (module, direction), (seconds, count) in sums.items()
    ]
    return sorted(places, key=lambda place: -place.seconds)


def _by_name(program: Program) -> dict[str, tuple[Instruction, Computation]]:
    return {
        name: (instruction, computation)
        for computation in program.computations.values()
        for name, instruction in computation.instructions.items()
    }
