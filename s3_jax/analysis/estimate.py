"""Compilation of a program for devices that are not attached, and its estimated cost."""

import dataclasses
import time
from collections.abc import Callable, Iterable

from s3_jax.analysis import costs as account
from s3_jax.analysis.chips import Chip
from s3_jax.analysis.costs import Cost
from s3_jax.analysis.hlo import parse_program
from s3_jax.analysis.hot_path import Hazard, hazards
from s3_jax.analysis.memory import Buffer, MemoryUse, largest_buffers, memory_use, needed_bytes
from s3_jax.analysis.origin import Origin
from s3_jax.analysis.programs import Traced
from s3_jax.errors import reason

SHOWN = 12


@dataclasses.dataclass(frozen=True)
class Collective:
    """Traffic between devices by all collectives of one kind."""

    kind: str
    count: float
    bytes: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Share:
    """Costs of one place in the code; `share` is its fraction of the whole program's seconds."""

    origin: Origin
    share: float
    seconds: float
    roofline: float
    flops: float
    bytes: float


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Estimate of a compiled program on one kind of device, per device and step.

    roofline: seconds if every instruction ran at peak arithmetic or bandwidth.
    seconds: from the compiler's cycle counts; for collectives, from link bandwidth.
    branches: the part of `seconds` that runs only under a condition (counted as if it always ran).
    """

    chip: Chip
    devices: int
    frames: int
    compile_seconds: float
    memory: MemoryUse
    flops: float
    bytes: float
    roofline: float
    seconds: float
    branches: float
    collectives: list[Collective]
    buffers: list[Buffer]
    slowest: list[Share]
    modules: list[Share]
    hazards: list[Hazard]
    text: str = dataclasses.field(repr=False)

    @property
    def headroom(self) -> float:
        """Share of the memory that stays free."""
        return 1 - self.memory.total / self.chip.hbm_bytes

    def share_of_peak(self, seconds: float) -> float:
        """Return matrix FLOPs per second as a share of the chip's peak, for a step of `seconds`."""
        return self.flops / seconds / self.chip.peak_flops if seconds else 0.0


@dataclasses.dataclass(frozen=True)
class OutOfMemory:
    """A program that the compiler rejected because it does not fit.

    needed: bytes on every device.
    details: the compiler's message.
    """

    chip: Chip
    needed: int
    compile_seconds: float
    details: str


def compile_estimate(traced: Traced, chip: Chip, devices: int) -> Estimate | OutOfMemory:
    """Compile and analyse a program; compilation takes minutes for large networks.

    Raises:
      RuntimeError: the compiler failed for a reason other than memory.
    """
    begin = time.perf_counter()
    try:
        compiled = traced.lowered.compile()
    except Exception as error:
        seconds, needed = time.perf_counter() - begin, needed_bytes(str(error), traced.held)
        if needed is None:
            raise RuntimeError(f"the TPU compiler failed: {reason(error)}") from error
        return OutOfMemory(chip, needed, seconds, str(error))
    seconds = time.perf_counter() - begin
    memory = memory_use(compiled.memory_analysis(), traced.held)
    return analyse(compiled.as_text() or "", memory, chip, devices, traced.frames, seconds)


def analyse(
    text: str, memory: MemoryUse, chip: Chip, devices: int, frames: int, compile_seconds: float
) -> Estimate:
    """Return the estimate of a compiled program.

    Args:
      text: the compiled program.
      frames: number of frames that a device processes per step.
    """
    program = parse_program(text)
    all_costs = account.costs(program)
    time_of = lambda cost: _estimate(cost, chip, devices)  # noqa: E731
    seconds = sum(map(time_of, all_costs))
    return Estimate(
        chip=chip,
        devices=devices,
        frames=frames,
        compile_seconds=compile_seconds,
        memory=memory,
        flops=sum(cost.flops for cost in all_costs),
        bytes=sum(cost.bytes for cost in all_costs),
        roofline=sum(cost.seconds(chip, devices) for cost in all_costs),
        seconds=seconds,
        branches=sum(time_of(cost) for cost in all_costs if cost.in_branch),
        collectives=_collectives(all_costs, chip, devices),
        buffers=largest_buffers(program, SHOWN),
        slowest=_shares(all_costs, lambda one: (one.name, one.origin), time_of, chip, devices),
        modules=_shares(all_costs, lambda one: module_of(one.origin), time_of, chip, devices),
        hazards=hazards(program),
        text=text,
    )


def module_of(origin: Origin) -> tuple[str, Origin]:
    """Return the part of the network, or the file, that a cost is attributed to.

    A part is the first two components of the origin's path.
    """
    parts = origin.module.split(" ")[0].split(":")[0].split("/")
    depth = 3 if parts[0].startswith(("S3", "s3_jax")) else 2
    name = "/".join(parts[:depth]) or "(no source)"
    return name, Origin(origin.direction, name, "")


def _estimate(cost: Cost, chip: Chip, devices: int) -> float:
    if cost.link_bytes:
        return cost.seconds(chip, devices)
    return cost.cycles / chip.clock


def _shares(
    costs: Iterable[Cost],
    key: Callable[[Cost], tuple[str, Origin]],
    time_of: Callable[[Cost], float],
    chip: Chip,
    devices: int,
) -> list[Share]:
    """Return the most expensive groups of costs."""
    groups: dict[tuple[str, Origin], list[Cost]] = {}
    for cost in costs:
        groups.setdefault(key(cost), []).append(cost)
    total = sum(map(time_of, costs)) or 1.0
    found = []
    for (_, origin), members in groups.items():
        seconds = sum(map(time_of, members))
        found.append(
            Share(
                origin=origin,
                share=seconds / total,
                seconds=seconds,
                roofline=sum(cost.seconds(chip, devices) for cost in members),
                flops=sum(cost.flops for cost in members),
                bytes=sum(cost.bytes for cost in members),
            )
        )
    return sorted(found, key=lambda one: -one.seconds)[:SHOWN]


def _collectives(costs: Iterable[Cost], chip: Chip, devices: int) -> list[Collective]:
    groups: dict[str, list[Cost]] = {}
    for cost in costs:
        if cost.link_bytes:
            groups.setdefault(cost.opcode.removesuffix("-start"), []).append(cost)
    return [
        Collective(
            kind=kind,
            count=sum(cost.rounds for cost in members),
            bytes=sum(cost.link_bytes for cost in members),
            seconds=sum(cost.seconds(chip, devices) for cost in members),
        )
        for kind, members in groups.items()
    ]
