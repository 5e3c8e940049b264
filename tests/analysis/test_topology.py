"""Names of topologies."""

import pytest

from s3_jax.analysis import topology
from s3_jax.analysis.topology import open_topology, parse_topology
from s3_jax.errors import InputError


@pytest.mark.parametrize(
    ("name", "chip", "sides"),
    [
        ("v5e:4x4", "v5e", (4, 4)),
        ("v4:2x2x1", "v4", (2, 2, 1)),
        ("v4-8", "v4", (2, 2, 1)),
        ("v5e-16", "v5e", (4, 4)),
        ("v5p:2x2x4", "v5p", (2, 2, 4)),
        ("v6e:1x1", "v6e", (1, 1)),
    ],
)
def test_names(name: str, chip: str, sides: tuple[int, ...]) -> None:
    found, found_sides = parse_topology(name)
    assert (found.name, found_sides) == (chip, sides)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("v9:2x2", "unknown"),
        ("v5e", "unknown"),
        ("v5e:2x", "unknown"),
        ("v4:4x4", "3 sides"),
        ("v5e:2x2x1", "2 sides"),
        ("v5e:0x4", "at least 1"),
    ],
)
def test_wrong_names_are_refused_with_a_right_one(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        parse_topology(name)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", topology.SLICES)
def test_slices_have_the_number_of_chips_they_say(name: str) -> None:
    chip, sides = parse_topology(name)
    count = 1
    for side in sides:
        count *= side
    assert count * (2 if chip.dimensions == 3 else 1) == int(name.split("-")[1])


def test_without_the_compiler_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "has_compiler", lambda: False)
    with pytest.raises(InputError, match=r"pip install -r requirements-tpu\.txt"):
        open_topology("v5e:2x2")
