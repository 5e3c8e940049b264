"""Prompts as text, both valid and malformed."""

import pytest

from s3_jax.errors import InputError
from s3_jax.prompting.text import ObjectPrompt, parse_prompts


def test_points_and_boxes_of_several_objects() -> None:
    found = parse_prompts(["1,2:3", "5,6,7,8.5", "9,9:3"], ["0,1:3"], ["1,2,30,40:2"])
    assert found == {
        1: ObjectPrompt(on=((5.0, 6.0), (7.0, 8.5))),
        2: ObjectPrompt(box=(1.0, 2.0, 30.0, 40.0)),
        3: ObjectPrompt(on=((1.0, 2.0), (9.0, 9.0)), beside=((0.0, 1.0),)),
    }


@pytest.mark.parametrize(
    ("points", "negative", "boxes", "problem"),
    [
        (["12:1"], [], [], "--points=12:1: write it as x,y:id or x,y,x,y:id"),
        (["1,2:cat"], [], [], "--points=1,2:cat: write it as"),
        (["1,2:0"], [], [], "the id being from 1 to 255"),
        (["1,nan:1"], [], [], "--points=1,nan:1: write it as"),
        ([], [], ["1,2,3:1"], "--box=1,2,3:1: write it as left,top,right,bottom:id"),
        ([], [], ["1,2,3,4:1", "1,2,3,5:1"], "--box=1,2,3,5:1: this object has a box already"),
        ([], ["4,4:2"], [], "object 2 has --negative_points only: give --points on it, or a --box"),
    ],
)
def test_wrong_text_is_refused_in_a_line(points, negative, boxes, problem) -> None:
    with pytest.raises(InputError) as refused:
        parse_prompts(points, negative, boxes)
    assert problem in str(refused.value) and "\n" not in str(refused.value)
