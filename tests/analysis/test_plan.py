"""Plans from a stored program, their reports, and the search for one that fits."""

import dataclasses
import json

import pytest

from s3_jax.analysis.chips import CHIPS, GIB
from s3_jax.analysis.memory import MemoryUse
from s3_jax.analysis.origin import Origin
from s3_jax.analysis.plan import OutOfMemory, Plan, analyse, module_of
from s3_jax.analysis.plan_report import attempt_line, numbers, refusal, report
from s3_jax.analysis.search import LADDER, candidates, search
from s3_jax.training.settings import StepSettings
from tests.analysis.make_program import PROGRAM, ROUNDS

V5E = CHIPS["v5e"]
USE = MemoryUse({"parameters": 4 * GIB, "optimizer": GIB}, padding=0, temporaries=3 * GIB, code=0)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return analyse(PROGRAM.read_text(), USE, V5E, devices=4, frames=8, compile_seconds=1.5)


def test_sums_and_shares(plan: Plan) -> None:
    assert plan.headroom == 0.5
    assert plan.flops > 0
    assert plan.branches < plan.estimate
    assert sum(one.share for one in plan.modules) == pytest.approx(1)
    assert plan.modules[0].origin.module == "encoder"
    assert plan.share_of_peak(plan.flops / V5E.peak_flops) == pytest.approx(1)
    assert plan.collectives[0].kind == "all-reduce"


def test_the_report_has_every_part(plan: Plan) -> None:
    text = report(plan)
    for part in ("parameters", "optimizer", "activations", "16.00 GiB: fits, 50% free",
                 "matrix FLOPs", "roofline", "compiler's estimate", "all-reduce", "encoder",
                 "largest buffers", f"run {ROUNDS:6.0f} times"):  # fmt: skip
        assert part in text


def test_numbers_are_plain_and_without_the_program(plan: Plan) -> None:
    values = json.loads(json.dumps(numbers(plan)))
    assert values["memory"]["total"] == 8 * GIB
    assert "text" not in values


def test_modules_are_cut_to_their_first_steps() -> None:
    deep = Origin("forward", "S3.segment/S3.transform_objects/object_transformer/blocks_2/x", "")
    assert module_of(deep)[0] == "S3.segment/S3.transform_objects/object_transformer"
    place = Origin("forward", "s3_jax/training/points.py:100 sample_map", "")
    assert module_of(place)[0] == "s3_jax/training/points.py"


def test_candidates_compute_more_and_more_again() -> None:
    ways = list(candidates(StepSettings(), rows=4))
    assert len(ways) == 3 * len(LADDER)
    assert [way.accumulate for way in ways] == [1] * 5 + [2] * 5 + [4] * 5
    assert (ways[0].clip.remat_encoder, ways[0].clip.remat_frames) == ("none", "none")
    assert (ways[4].clip.remat_encoder, ways[4].clip.remat_frames) == ("full", "full")


def test_search_stops_at_the_first_that_fits(plan: Plan) -> None:
    tight = dataclasses.replace(plan, memory=dataclasses.replace(USE, temporaries=10 * GIB))
    outcomes = iter([OutOfMemory(V5E, 20 * GIB, 1.0, "details"), tight, plan, plan])
    attempts = list(search(StepSettings(), 1, 0.1, lambda settings: next(outcomes)))
    assert [attempt.fits(0.1) for attempt in attempts] == [False, False, True]
    lines = [attempt_line(attempt, 0.1) for attempt in attempts]
    assert "20.0 GiB, does not fit" in lines[0]
    assert "less than 10% free" in lines[1]
    assert lines[2].startswith("micro-batches 1, remat encoder products, frames products: 8.0 GiB")


def test_what_does_not_fit_is_reported_with_the_compilers_words() -> None:
    text = refusal(OutOfMemory(V5E, 20 * GIB, 1.0, "Largest allocations: ..."))
    assert text.startswith("does not fit: it needs 20.00 GiB per device of the 16 GiB")
    assert "Largest allocations" in text
