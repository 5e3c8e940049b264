"""Rounds of loops, memory traffic, and the origins of costs."""

import pytest

from s3_jax.analysis.chips import CHIPS
from s3_jax.analysis.costs import Cost, costs, link_seconds
from s3_jax.analysis.execution import executions, trip_count
from s3_jax.analysis.hlo import Program, parse_program
from s3_jax.analysis.origin import Origin
from tests.analysis.make_program import CHANNELS, ROUNDS, ROWS, SIDE

V5E = CHIPS["v5e"]


def _program(*lines: str) -> Program:
    return parse_program("\n".join(["ENTRY %main () -> f32[] {", *(f"  {x}" for x in lines), "}"]))


def test_a_loop_runs_its_body_and_branches_are_marked(program: Program) -> None:
    runs = executions(program)
    assert runs[program.entry].rounds == 1
    inside = [run for name, run in runs.items() if name != program.entry]
    assert {run.rounds for run in inside} == {ROUNDS}
    assert [run.in_branch for run in inside].count(True) == 2  # the two branches


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("%n = s32[] constant(9)\n  ROOT %c = pred[] compare(%i, %n), direction=LT", 9),
        ("%n = s32[] get-tuple-element(%p), index=1\n  ROOT %c = pred[] compare(%i, %n)", 4),
        ("ROOT %c = pred[] custom-call(%i)", 1),  # unknown
    ],
)
def test_trip_counts(condition: str, expected: int) -> None:
    text = f"""
%cond (p: (s32[], s32[])) -> pred[] {{
  %p = (s32[], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  {condition}
}}
%body (p: (s32[], s32[])) -> (s32[], s32[]) {{
  ROOT %p = (s32[], s32[]) parameter(0)
}}
ENTRY %main () -> (s32[], s32[]) {{
  %zero = s32[] constant(0)
  %four = s32[] constant(4)
  %copy = s32[] copy(%four)
  %start = (s32[], s32[]) tuple(%zero, %copy)
  ROOT %w = (s32[], s32[]) while(%start), condition=%cond, body=%body
}}"""
    program = parse_program(text)
    main = program.computations["main"]
    assert trip_count(program, main, main.instructions["w"]) == expected


def test_the_compilers_own_count_goes_first() -> None:
    program = _program(
        'ROOT %w = s32[] while(%x), condition=%c, body=%b, backend_config={"known_trip_count":'
        '{"n":"7"}}'
    )
    main = program.computations["main"]
    assert trip_count(program, main, main.instructions["w"]) == 7


def test_flops_of_the_stored_program(program: Program) -> None:
    """The compiler may cut a convolution into overlapping pieces, never do less."""
    pixels = SIDE * SIDE
    product = 2 * pixels * CHANNELS * CHANNELS
    taps = (3 * SIDE - 2) ** 2 / pixels  # of 9, on average, that do not fall outside
    total = sum(cost.flops for cost in costs(program))
    assert ROUNDS * product * (1 + taps) <= total < ROUNDS * product * (1 + 1.5 * 9)


def test_costs_name_the_module_they_come_from(program: Program) -> None:
    convolution = max(costs(program), key=lambda cost: cost.flops)
    assert convolution.origin.module == "encoder"
    assert convolution.rounds == ROUNDS


def test_collectives_are_counted_by_what_they_reduce(program: Program) -> None:
    (reduced,) = [cost for cost in costs(program) if cost.link_bytes]
    assert reduced.opcode == "all-reduce"
    assert reduced.link_bytes == ROUNDS * ROWS * 2  # bfloat16
    assert reduced.seconds(V5E, 4) == link_seconds(reduced.link_bytes, V5E, 4)


def test_traffic_leaves_out_memory_on_the_chip_and_what_is_not_read() -> None:
    program = _program(
        "%a = f32[8,128]{1,0:T(8,128)} parameter(0)",
        "%b = f32[8,128]{1,0:T(8,128)S(1)} add(%a, %a)",
        "%s = s32[] constant(0)",
        "%big = f32[800,128]{1,0:T(8,128)} parameter(1)",
        "%c = f32[8,128]{1,0:T(8,128)} dynamic-slice(%big, %s, %s), dynamic_slice_sizes={8,128}",
        "ROOT %d = f32[800,128]{1,0:T(8,128)} dynamic-update-slice(%big, %c, %s, %s)",
    )
    by_name = {cost.name: cost.bytes for cost in costs(program)}
    array = 8 * 128 * 4
    assert by_name["b"] == 2 * array  # read twice, written to the chip
    assert by_name["c"] == pytest.approx(2 * array, rel=0.01)  # and where the slice starts
    assert by_name["d"] == pytest.approx(2 * array, rel=0.01)


def test_the_roofline_is_the_slower_of_arithmetic_and_memory() -> None:
    cost = Cost("x", "fusion", Origin("", "", ""), 1.0, False, V5E.peak_flops,
                2 * V5E.hbm_bandwidth, 0.0, 0.0)  # fmt: skip
    assert cost.seconds(V5E, 4) == pytest.approx(2)


def test_a_single_device_sends_nothing() -> None:
    assert link_seconds(1e9, V5E, 1) == 0
