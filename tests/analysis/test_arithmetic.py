"""Multiplications counted in compiled programs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from s3_jax.analysis import costs
from s3_jax.analysis.arithmetic import matrix_flops
from s3_jax.analysis.hlo import Computation, parse_instruction, parse_program

LAYOUT = ("NHWC", "HWIO", "NHWC")


def _flops(function: Callable[..., Any], *shapes: tuple[int, ...]) -> float:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    text = jax.jit(function).lower(*arguments).compile().as_text()
    return sum(cost.flops for cost in costs.costs(parse_program(text or "")))


def test_matrix_product() -> None:
    assert _flops(lambda a, b: a @ b, (8, 16), (16, 4)) == 2 * 8 * 16 * 4


def test_batched_product_in_a_loop_counts_every_round() -> None:
    def loop(a: jax.Array, b: jax.Array) -> jax.Array:
        return lax.scan(lambda x, _: (jnp.sin(x @ b), None), a, None, length=6)[0]

    assert _flops(loop, (3, 8, 16), (3, 16, 16)) == 6 * 3 * 2 * 8 * 16 * 16


def test_convolution_without_padding() -> None:
    convolve = lambda x, k: lax.conv_general_dilated(x, k, (1, 1), "VALID",  # noqa: E731
                                                     dimension_numbers=LAYOUT)  # fmt: skip
    assert _flops(convolve, (2, 8, 8, 16), (3, 3, 16, 4)) == 2 * 2 * 6 * 6 * 9 * 16 * 4


def _convolution(shapes: tuple[str, str, str], window: str, labels: str) -> float:
    out, left, right = shapes
    convolution = f"{out} convolution(%x, %k), window={{{window}}}, dim_labels={labels}"
    lines = [f"  %x = {left} parameter(0)", f"  %k = {right} parameter(1)", f"  %y = {convolution}"]
    instructions = {one.name: one for line in lines if (one := parse_instruction(line))}
    return matrix_flops(instructions["y"], Computation("c", instructions))


@pytest.mark.parametrize(
    ("window", "out", "pairs"),
    [
        ("size=3 pad=1_1", 5, 13),  # the outermost two outputs miss one entry each
        ("size=3 stride=2 pad=1_1", 3, 7),
        ("size=3 pad=2_2 lhs_dilate=2", 11, 15),  # entries lie at 0, 2, 4, 6, 8
        ("size=2 rhs_dilate=3", 2, 4),
    ],
)
def test_padding_and_holes_do_not_count(window: str, out: int, pairs: int) -> None:
    shapes = f"f32[1,{out},2]", "f32[1,5,4]", f"f32[{window[5]},4,2]"
    assert _convolution(shapes, window, "b0f_0io->b0f") == 2 * pairs * 4 * 2


def test_batched_product_written_as_convolution_counts_as_a_product() -> None:
    """A TPU's compiler makes the batch axis a spatial one, all but one place of it padding."""
    shapes = "f32[12,8,4]", "f32[12,8,16]", "f32[12,4,16]"
    window = "size=12 stride=11 pad=0_0 lhs_dilate=12"
    assert _convolution(shapes, window, "0bf_0oi->0bf") == 2 * 12 * 8 * 16 * 4


def test_other_instructions_have_none() -> None:
    one = parse_instruction("  %y = f32[8]{0} add(%x, %x)")
    assert one is not None
    assert matrix_flops(one, Computation("c", {})) == 0
