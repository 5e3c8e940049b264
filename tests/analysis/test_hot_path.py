"""Hazards found in hot paths."""

import pytest

from s3_jax.analysis.hlo import Program, parse_instruction, parse_program
from s3_jax.analysis.hot_path import hazard_kind, hazards
from tests.analysis.make_program import CHANNELS, ROUNDS, ROWS


def test_gathers_in_fusions_and_sorts_are_found_with_their_rounds(program: Program) -> None:
    found = {one.kind: one for one in hazards(program)}
    assert set(found) == {"gather", "sort"}
    assert found["gather"].rounds == ROUNDS
    assert found["gather"].example == f"bf16[{ROWS},{CHANNELS}]"
    assert found["sort"].rounds == 1


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("f32[4] gather(%x, %i)", "gather"),
        ("f32[4] scatter(%x, %i, %u)", "scatter"),
        ("(f32[4], s32[4]) sort(%x, %i)", "sort"),
        ('(f32[4], s32[4]) custom-call(%x), custom_call_target="TopK"', "sort"),
        ('f32[4] custom-call(%x), custom_call_target="xla_python_cpu_callback"', "host"),
        ("token[] outfeed(%x, %t)", "host"),
        ("(f32[4], u32[], token[]) send(%x, %t)", "host"),
        ("f32[<=4] add(%x, %x)", "dynamic shape"),
        ("f32[4] dynamic-slice(%x, %i)", ""),
        ('f32[4] custom-call(%x), custom_call_target="AllocateBuffer"', ""),
    ],
)
def test_kinds(line: str, kind: str) -> None:
    instruction = parse_instruction(f"  %y = {line}")
    assert instruction is not None
    assert hazard_kind(instruction) == kind


def test_loops_over_single_numbers_are_found_and_short_loops_are_not() -> None:
    def text(rounds: int) -> str:
        return f"""
%cond (p: s32[]) -> pred[] {{
  %p = s32[] parameter(0)
  %n = s32[] constant({rounds})
  ROOT %c = pred[] compare(%p, %n), direction=LT
}}
%body (p: s32[]) -> s32[] {{
  ROOT %p = s32[] parameter(0)
}}
ENTRY %main () -> s32[] {{
  %x = s32[] constant(0)
  ROOT %w = s32[] while(%x), condition=%cond, body=%body, metadata={{op_name="jit(f)/S3.a/while"}}
}}"""

    (found,) = hazards(parse_program(text(500)))
    assert (found.kind, found.rounds, found.origin.module) == ("loop of 500", 500, "S3.a")
    assert hazards(parse_program(text(8))) == []
