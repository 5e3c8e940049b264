"""Origins of instructions in the project."""

import pytest

from s3_jax.analysis.hlo import Computation, Instruction, Program, Source, parse_instruction
from s3_jax.analysis.origin import Origin, origin_of

SOURCES = {
    3: (
        Source("/x/site-packages/flax/linen.py", "apply", 1),
        Source("/home/s3_jax/s3_jax/training/points.py", "sample_map", 100),
        Source("/home/s3_jax/tools/train.py", "main", 5),
    )
}
EMPTY = Program({}, "main", SOURCES)


def _instruction(op_name: str, frame: int = 0) -> Instruction:
    metadata = f'metadata={{op_name="{op_name}" stack_frame_id={frame}}}'
    one = parse_instruction(f"  %y = f32[8] add(%x, %x), {metadata}")
    assert one is not None
    return one


def _origin(op_name: str, frame: int = 0) -> Origin:
    return origin_of(_instruction(op_name, frame), Computation("main", {}), EMPTY)


@pytest.mark.parametrize(
    ("op_name", "direction"),
    [
        ("jit(f)/jvp()/while/body/S3.segment/add", "forward"),
        ("jit(f)/transpose(jvp())/while/body/S3.segment/add", "backward"),
        ("jit(f)/transpose(jvp())/while/body/checkpoint/rematted_computation/S3.segment/add",
         "again"),
    ],
)  # fmt: skip
def test_pass_and_module(op_name: str, direction: str) -> None:
    assert _origin(op_name) == Origin(direction, "S3.segment", "")


def test_private_methods_of_the_module_before_are_left_out() -> None:
    path = "jit(f)/S3.encode/blocks_0/blocks_0._run/read_from_pixel/read_from_pixel._pick/gather"
    assert _origin(path).module == "S3.encode/blocks_0/read_from_pixel"


def test_without_a_module_it_is_the_innermost_place_in_the_project() -> None:
    found = _origin("jit(f)/vmap()/gather", frame=3)
    assert found.module == found.source == "s3_jax/training/points.py:100 sample_map"


def test_a_fusion_without_a_name_has_that_of_the_product_in_it() -> None:
    inside = [_instruction("jit(f)/S3.b/add"), parse_instruction(
        '  %p = f32[8] dot(%a, %b), metadata={op_name="jit(f)/S3.a/dot_general"}')]  # fmt: skip
    named = {one.name: one for one in inside if one is not None}
    fusion = parse_instruction("  %f = f32[8] fusion(%x), kind=kLoop, calls=%inner")
    program = Program({"inner": Computation("inner", named)}, "main", {})
    assert fusion is not None
    assert origin_of(fusion, Computation("main", {}), program).module == "S3.a"
