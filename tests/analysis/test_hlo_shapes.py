"""Shapes in programs' text, and the memory they take."""

import pytest

from s3_jax.analysis.hlo_shapes import bits_of, parse_shapes


def test_one_array_with_its_layout() -> None:
    (shape,) = parse_shapes("bf16[2,16,8,32]{3,1,2,0:T(8,128)(2,1)S(1)}")
    assert (shape.dtype, shape.dims) == ("bf16", (2, 16, 8, 32))
    assert (shape.minor_to_major, shape.tile) == ((3, 1, 2, 0), (8, 128))
    assert not shape.in_main_memory
    assert str(shape) == "bf16[2,16,8,32]"


def test_arrays_of_a_tuple_with_comments_between() -> None:
    shapes = parse_shapes("(f32[3]{0:T(128)}, /*index=1*/pred[], (s32[2,2]{1,0}, u32[]{:S(2)}))")
    assert [str(shape) for shape in shapes] == ["f32[3]", "pred[]", "s32[2,2]", "u32[]"]
    assert [shape.in_main_memory for shape in shapes] == [True, True, True, False]


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("f32[16,128]{1,0:T(8,128)}", 16 * 128 * 4),
        ("f32[16,64]{1,0:T(8,128)}", 16 * 128 * 4),  # half of it padding
        ("f32[16,64]{0,1:T(8,128)}", 64 * 128 * 4),  # 16 is the minor axis here
        ("bf16[3,5,7]{2,1,0:T(8,128)(2,1)}", 3 * 8 * 128 * 2),
        ("f32[5]{0:T(128)}", 128 * 4),
        ("f32[5,6]{1,0}", 5 * 6 * 4),
        ("f32[]", 4),
    ],
)
def test_tiles_are_stored_whole(text: str, stored: int) -> None:
    (shape,) = parse_shapes(text)
    assert shape.stored_bytes == stored


def test_logical_bytes_have_no_padding() -> None:
    (shape,) = parse_shapes("f32[16,64]{1,0:T(8,128)}")
    assert shape.logical_bytes == 16 * 64 * 4


def test_upper_bounds_mark_a_dynamic_shape() -> None:
    dynamic, fixed = parse_shapes("(f32[<=8,4]{1,0}, f32[8,4]{1,0})")
    assert dynamic.dynamic
    assert dynamic.dims == (8, 4)
    assert not fixed.dynamic


@pytest.mark.parametrize(
    ("dtype", "bits"), [("f32", 32), ("bf16", 16), ("pred", 8), ("s4", 4), ("f8e4m3fn", 8)]
)
def test_bits_of_types(dtype: str, bits: int) -> None:
    assert bits_of(dtype) == bits
