"""Memory of programs, including those that do not fit."""

import types

import pytest

from s3_jax.analysis.hlo import Program
from s3_jax.analysis.memory import largest_buffers, memory_use, needed_bytes
from tests.analysis.make_program import SIDE


def test_use_adds_up() -> None:
    statistics = types.SimpleNamespace(
        argument_size_in_bytes=1000,
        output_size_in_bytes=700,
        alias_size_in_bytes=600,
        temp_size_in_bytes=50,
        generated_code_size_in_bytes=7,
    )
    use = memory_use(statistics, {"parameters": 400, "optimizer": 500})
    assert (use.padding, use.temporaries, use.code) == (100, 150, 7)
    assert use.total == 1000 + 150 + 7


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 25.5G of 15.75G hbm. "
         "Exceeded hbm capacity by 9.75G.", int(25.5 * 2**30)),
        ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
         "temporaries (512.00M) exceeds available HBM (15.75G).", 512 * 2**20 + 100),
        ("INTERNAL: something else", None),
    ],
)  # fmt: skip
def test_messages_of_the_compiler(message: str, needed: int | None) -> None:
    assert needed_bytes(message, {"parameters": 100}) == needed


def test_largest_buffers_come_first_and_each_once(program: Program) -> None:
    buffers = largest_buffers(program, 5)
    sizes = [one.bytes for one in buffers]
    assert sizes == sorted(sizes, reverse=True)
    assert len({(one.shape, one.origin) for one in buffers}) == len(buffers) == 5
    assert f"{SIDE},{SIDE}" in buffers[0].shape
