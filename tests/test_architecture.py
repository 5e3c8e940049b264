"""The order of rooms in docs/architecture.md, imports without a circle, short functions; slow tests
stand in docs/testing.md."""

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "s3_jax").rglob("*.py"))
TREES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
        file.read_text()
    )
    for file in FILES
}
ROOMS = re.findall(r"^\| `([a-z_]+)", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
OFFERS = ("s3_jax", "s3_jax.__main__")  # the package's front, which may show what any room has


def imports(module: str) -> Iterator[str]:
    """Modules of the package that a module imports, wherever the statement stands."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("s3_jax"):
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in TREES else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("s3_jax"))


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_stands_in_the_table_once() -> None:
    assert sorted(ROOMS) == sorted({room(module) for module in TREES if module not in OFFERS})


@pytest.mark.parametrize("module", [module for module in TREES if module not in OFFERS])
def test_a_module_imports_only_from_rooms_above_its_own(module: str) -> None:
    above = ROOMS[: ROOMS.index(room(module)) + 1]
    assert {room(one) for one in imports(module) if one not in OFFERS} <= set(above)


@pytest.mark.parametrize("name", ["media", "data"])
def test_media_and_training_data_know_nothing_of_networks(name: str) -> None:
    known = {room(one) for module in TREES if module.startswith(f"s3_jax.{name}.")
             for one in imports(module)}  # fmt: skip
    assert known <= {"errors", "limits", "files", "config", "media", name}


def test_no_module_imports_itself_by_way_of_others() -> None:
    done: set[str] = set()

    def follow(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for one in imports(module):
                if one not in OFFERS:
                    follow(one, (*path, module))
            done.add(module)

    for module in TREES:
        if module not in OFFERS:
            follow(module, ())


def test_functions_are_short() -> None:
    """Lines from `def` to the end, docstring included."""
    lengths = [
        (node.end_lineno or 0) - node.lineno + 1
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]
    assert statistics.median(lengths) <= 8
    assert statistics.quantiles(lengths, n=20)[-1] <= 30


def test_files_with_slow_tests_stand_in_the_table() -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", page, re.MULTILINE)
    mark = re.compile(r"^(@|pytestmark = )pytest\.mark\.slow$|\bslow\(", re.MULTILINE)
    tests = ROOT / "tests"
    marked = [file for file in tests.rglob("test_*.py") if mark.search(file.read_text())]
    assert sorted(listed) == sorted(file.relative_to(tests).as_posix() for file in marked)
