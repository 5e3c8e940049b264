"""Estimates from a stored program, their reports, and the search for a step that fits."""

import dataclasses
import json
from collections.abc import Callable

import pytest

from s3_jax.analysis.chips import CHIPS, GIB
from s3_jax.analysis.estimate import Estimate, OutOfMemory, analyse, module_of
from s3_jax.analysis.estimate_report import attempt_line, numbers, refusal, report
from s3_jax.analysis.memory import MemoryUse
from s3_jax.analysis.origin import Origin
from s3_jax.analysis.search import LADDER, best, search
from s3_jax.training.step_config import StepConfig
from tests.analysis.make_program import PROGRAM, ROUNDS

V5E = CHIPS["v5e"]
USE = MemoryUse({"parameters": 4 * GIB, "optimizer": GIB}, padding=0, temporaries=3 * GIB, code=0)


@pytest.fixture(scope="module")
def estimate() -> Estimate:
    return analyse(PROGRAM.read_text(), USE, V5E, devices=4, frames=8, compile_seconds=1.5)


def test_sums_and_shares(estimate: Estimate) -> None:
    assert estimate.headroom == 0.5
    assert estimate.flops > 0
    assert estimate.branches < estimate.seconds
    assert sum(one.share for one in estimate.modules) == pytest.approx(1)
    assert estimate.modules[0].origin.module == "encoder"
    assert estimate.share_of_peak(estimate.flops / V5E.peak_flops) == pytest.approx(1)
    assert estimate.collectives[0].kind == "all-reduce"


def test_the_report_has_every_part(estimate: Estimate) -> None:
    text = report(estimate)
    for part in ("parameters", "optimizer", "activations", "16.00 GiB: fits, 50% free",
                 "matrix FLOPs", "roofline", "compiler's estimate", "all-reduce", "encoder",
                 "largest buffers", f"run {ROUNDS:6.0f} times"):  # fmt: skip
        assert part in text


def test_numbers_are_plain_and_without_the_program(estimate: Estimate) -> None:
    values = json.loads(json.dumps(numbers(estimate)))
    assert values["memory"]["total"] == 8 * GIB
    assert "text" not in values


def test_modules_are_cut_to_their_first_steps() -> None:
    deep = Origin("forward", "S3.segment/S3.transform_objects/object_transformer/blocks_2/x", "")
    assert module_of(deep)[0] == "S3.segment/S3.transform_objects/object_transformer"
    place = Origin("forward", "s3_jax/training/points.py:100 sample_map", "")
    assert module_of(place)[0] == "s3_jax/training/points.py"


def compiler(estimate: Estimate, gigabytes: dict[int, list[int]]) -> tuple[list, Callable]:
    """Return the list of requested steps, and a fake compiler with memory by step.

    Memory depends on the number of micro-batches and the step of the ladder.
    """
    asked = []

    def compile_one(step: StepConfig) -> Estimate | OutOfMemory:
        rung = LADDER.index((step.clip.remat_encoder, step.clip.remat_frames))
        asked.append((step.accumulate, rung))
        needed = gigabytes[step.accumulate][rung]
        if needed > 16:
            return OutOfMemory(V5E, needed * GIB, 1.0, "details")
        use = MemoryUse({"parameters": needed * GIB}, padding=0, temporaries=0, code=0)
        return dataclasses.replace(estimate, memory=use, seconds=1.0 + rung)

    return asked, compile_one


@pytest.mark.parametrize(
    ("gigabytes", "expected", "chosen"),
    [
        ({1: [14, 0, 0, 0, 0]}, [(1, 0)], (1, 0)),
        ({1: [20, 15, 14, 13, 12]}, [(1, 0), (1, 4), (1, 2), (1, 1)], (1, 2)),
        ({1: [20, 18, 17, 16, 14]}, [(1, 0), (1, 4), (1, 2), (1, 3)], (1, 4)),
        ({1: [40, 0, 0, 0, 20], 2: [12, 0, 0, 0, 0]}, [(1, 0), (1, 4), (2, 0)], (2, 0)),
    ],
)
def test_search_finds_the_least_rematerialisation_that_fits(
    estimate: Estimate, gigabytes: dict, expected: list, chosen: tuple
) -> None:
    """15 of 16 GiB is too much where a tenth should stay free."""
    asked, compile_one = compiler(estimate, gigabytes)
    attempts = list(search(StepConfig(), 4, 0.1, compile_one))
    assert asked == expected
    assert best(attempts, 0.1) is attempts[asked.index(chosen)]


def test_search_goes_through_all_micro_batches_where_nothing_fits(estimate: Estimate) -> None:
    asked, compile_one = compiler(estimate, {parts: [20] * 5 for parts in (1, 2, 4)})
    attempts = list(search(StepConfig(), 4, 0.1, compile_one))
    assert asked == [(1, 0), (1, 4), (2, 0), (2, 4), (4, 0), (4, 4)]
    assert best(attempts, 0.1) is attempts[-1]


def test_attempts_are_a_line_each(estimate: Estimate) -> None:
    _, compile_one = compiler(estimate, {1: [20, 8, 15, 0, 12]})
    lines = [attempt_line(one, 0.1) for one in search(StepConfig(), 1, 0.1, compile_one)]
    assert "20.0 GiB, does not fit" in lines[0]
    assert lines[1].startswith("micro-batches 1, remat encoder full, frames full: 12.0 GiB")
    assert "less than 10% free" in lines[2]


def test_what_does_not_fit_is_reported_with_the_compilers_words() -> None:
    text = refusal(OutOfMemory(V5E, 20 * GIB, 1.0, "Largest allocations: ..."))
    assert text.startswith("does not fit: it needs 20.00 GiB per device of the 16 GiB")
    assert "Largest allocations" in text
