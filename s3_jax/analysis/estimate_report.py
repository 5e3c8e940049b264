"""Estimates as text and as plain numbers."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from s3_jax.analysis.estimate import Estimate, OutOfMemory, Share
from s3_jax.analysis.hot_path import Hazard
from s3_jax.analysis.memory import MemoryUse
from s3_jax.analysis.search import Attempt

GIB = 2**30


def report(estimate: Estimate) -> str:
    """Format a whole estimate in sections."""
    return "\n\n".join(
        (
            _section("memory per device", memory_lines(estimate)),
            _section("work per device and step", work_lines(estimate)),
            _section("collectives", _collective_lines(estimate)),
            _section("costliest modules", _share_lines(estimate.modules)),
            _section("costliest instructions", _share_lines(estimate.slowest)),
            _section("largest buffers", _buffer_lines(estimate)),
            _section("gathers, scatters, sorts, long loops, dynamic shapes, host calls",
                     _hazard_lines(estimate.hazards)),
        )
    )  # fmt: skip


def memory_lines(estimate: Estimate) -> list[str]:
    """Format one line per kind of memory, and the total compared with the chip's memory."""
    use = estimate.memory
    rows = [(name, size) for name, size in use.held.items()]
    rows += [("padding of these", use.padding), ("activations, temporaries", use.temporaries),
             ("program", use.code), ("total", use.total)]  # fmt: skip
    lines = [f"{name:26s}{size / GIB:8.2f} GiB" for name, size in rows]
    verdict = "fits" if estimate.headroom >= 0 else "does not fit"
    lines.append(f"{estimate.chip.name} has {estimate.chip.hbm_bytes / GIB:22.2f} GiB: {verdict}, "
                 f"{estimate.headroom:.0%} free")  # fmt: skip
    return lines


def work_lines(estimate: Estimate) -> list[str]:
    """Format arithmetic, traffic, and the times they imply."""
    devices = f"{estimate.devices} device{'s' if estimate.devices > 1 else ''}"
    lines = [
        f"matrix FLOPs              {estimate.flops / 1e12:8.2f} TFLOP",
        f"main-memory traffic       {estimate.bytes / 1e9:8.2f} GB",
    ]
    for name, seconds in (
        ("roofline", estimate.roofline),
        ("compiler's estimate", estimate.seconds),
    ):
        frames = estimate.frames * estimate.devices / seconds if seconds else 0.0
        lines.append(f"{name:26s}{1e3 * seconds:8.1f} ms, {estimate.share_of_peak(seconds):.0%} of "
                     f"peak; {frames:.0f} frames/s on {devices}")  # fmt: skip
    if estimate.branches:
        lines.append(f"of which in branches      {1e3 * estimate.branches:8.1f} ms, counted as if "
                     "taken every time")  # fmt: skip
    return lines


def _collective_lines(estimate: Estimate) -> list[str]:
    return [
        f"{one.kind:20s}{one.count:6.0f} x, {one.bytes / 1e6:9.2f} MB, {1e3 * one.seconds:7.2f} ms"
        for one in estimate.collectives
    ]


def _share_lines(shares: Sequence[Share]) -> list[str]:
    if not shares:
        return []
    lines = ["  share       ms roofline    GFLOP       MB  pass      where"]
    for one in shares:
        where = one.origin.module
        if one.origin.source and one.origin.source not in where:
            where += f"  ({one.origin.source})"
        lines.append(f"{one.share:7.1%}{1e3 * one.seconds:9.2f}{1e3 * one.roofline:9.2f}"
                     f"{one.flops / 1e9:9.1f}{one.bytes / 1e6:9.1f}  {one.origin.direction:9s} "
                     f"{where or '(no source)'}")  # fmt: skip
    return lines


def _buffer_lines(estimate: Estimate) -> list[str]:
    return [
        f"{one.bytes / 1e6:9.1f} MB  {one.shape:32s} {one.origin.direction:9s} "
        f"{one.origin.module or '(no source)'}"
        for one in estimate.buffers
    ]


def _hazard_lines(hazards: Sequence[Hazard]) -> list[str]:
    return [
        f"{one.kind:14s} x {one.count:<4d} run {one.rounds:6.0f} times  {one.example:34s} "
        f"{one.origin.direction:9s} {one.origin.module or '(no source)'}"
        for one in hazards
    ]


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join((title, *(f"  {line}" for line in lines or ["none"])))


def refusal(outcome: OutOfMemory) -> str:
    """Format the report for a program that does not fit."""
    head = (f"does not fit: it needs {outcome.needed / GIB:.2f} GiB per device of the "
            f"{outcome.chip.hbm_bytes / GIB:.0f} GiB that a {outcome.chip.name} has")  # fmt: skip
    return f"{head}\n\nthe compiler says:\n{outcome.details[:4000]}"


def attempt_line(attempt: Attempt, headroom: float) -> str:
    """Format one line for an attempt."""
    clip, outcome = attempt.step.clip, attempt.outcome
    way = (f"micro-batches {attempt.step.accumulate}, remat encoder {clip.remat_encoder}, "
           f"frames {clip.remat_frames}")  # fmt: skip
    if isinstance(outcome, OutOfMemory):
        return f"{way}: needs {outcome.needed / GIB:.1f} GiB, does not fit"
    verdict = "fits" if attempt.fits(headroom) else f"less than {headroom:.0%} free"
    return (f"{way}: {outcome.memory.total / GIB:.1f} GiB, {outcome.headroom:.0%} free, "
            f"{1e3 * outcome.seconds:.0f} ms: {verdict}")  # fmt: skip


def numbers(estimate: Estimate) -> dict[str, Any]:
    """Return the estimate for a JSON file, without the program's text."""
    values = dataclasses.asdict(estimate)
    del values["text"]
    return values | {
        "memory": _memory_numbers(estimate.memory),
        "headroom": estimate.headroom,
        "share_of_peak": {
            "roofline": estimate.share_of_peak(estimate.roofline),
            "estimate": estimate.share_of_peak(estimate.seconds),
        },
    }


def _memory_numbers(use: MemoryUse) -> dict[str, Any]:
    return dataclasses.asdict(use) | {"total": use.total}
