"""Reading the text of compiled programs."""

import jax
import jax.numpy as jnp
import pytest

from s3_jax.analysis.hlo import Program, parse_instruction, parse_program


def test_instruction_with_tuple_shape_and_metadata() -> None:
    one = parse_instruction(
        "  ROOT %while.3 = (s32[]{:T(128)}, bf16[2,4]{1,0:T(8,128)S(1)}) while(%tuple.1), "
        'condition=%cond.1, body=%body.2, metadata={op_name="jit(f)/a (b)/while" '
        'stack_frame_id=7}, backend_config={"window_config":{"estimated_cycles":"42"}}'
    )
    assert one is not None
    assert (one.name, one.opcode, one.operands) == ("while.3", "while", ("tuple.1",))
    assert [str(shape) for shape in one.shapes] == ["s32[]", "bf16[2,4]"]
    assert dict(one.called) == {"condition": "cond.1", "body": "body.2"}
    assert (one.op_name, one.frame, one.cycles) == ("jit(f)/a (b)/while", 7, 42)
    assert one.root


def test_constant_keeps_its_value_and_branches_their_order() -> None:
    constant = parse_instruction("  %c = s32[] constant(256)")
    branches = parse_instruction(
        "  %x = f32[] conditional(%p, %a, %b), branch_computations={%first, %second}"
    )
    assert constant is not None
    assert branches is not None
    assert constant.literal == "256"
    assert [name for _, name in branches.called] == ["first", "second"]


@pytest.mark.parametrize("line", ["", "}", "FileNames", "%region (a: f32[]) -> f32[] {"])
def test_other_lines_are_no_instructions(line: str) -> None:
    assert parse_instruction(line) is None


def test_a_program_has_computations_an_entry_and_sources(program: Program) -> None:
    entry = program.computations[program.entry]
    opcodes = [one.opcode for one in entry.instructions.values()]
    assert {"while", "sort", "all-reduce"} <= set(opcodes)
    assert entry.root.root
    stack = program.sources[15]
    assert (stack[0].file, stack[0].function) == (
        "tests/analysis/make_program.py",
        "step.<locals>.one_round",
    )
    assert {"step", "main"} <= {source.function for source in stack[1:]}


def test_reads_programs_of_this_machine_too() -> None:
    text = jax.jit(lambda x: jnp.sin(x) @ x).lower(jnp.ones((4, 4))).compile().as_text()
    assert text is not None
    program = parse_program(text)
    assert program.computations[program.entry].root.shapes[0].dims == (4, 4)


def test_text_without_a_program_is_refused() -> None:
    with pytest.raises(ValueError, match="no ENTRY"):
        parse_program("HloModule nothing\n")
