"""Public names have docstrings, which begin with an imperative verb or a noun phrase."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import s3_jax

ROOT = Path(s3_jax.__file__).parent
HOOKS = {"setup"}  # called by Flax
OPENERS = """
    What Whether How Of Says Tells Which Why Where When Returns Reads Writes Gives Makes
    Yields Raises Takes Holds Keeps Computes Loads Saves Builds Runs Adds Removes Counts Moves
    Puts Sends Stores Compiles Empties Splits Turns Draws Sets Gets Creates Segments Serves
    Packs Merges Deletes Remembers Repeats Follows Consolidates Condenses
"""
Node = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Function = (ast.FunctionDef, ast.AsyncFunctionDef)


def modules() -> list[Path]:
    """Return the modules whose docstrings are checked, relative to the package."""
    return [path.relative_to(ROOT) for path in sorted(ROOT.rglob("*.py"))]


def public(node: ast.Module | ast.ClassDef) -> Iterator[tuple[str, Node]]:
    """Yield public classes and functions, with the methods of the classes."""
    for child in node.body:
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            yield child.name, child
            yield from ((f"{child.name}.{name}", inner) for name, inner in public(child))
        elif isinstance(child, Function) and not child.name.startswith("_"):
            yield child.name, child


def is_stub(node: Node) -> bool:
    """Return True for a protocol's member that is only declared."""
    return isinstance(node, Function) and ast.unparse(node.body) == "..."


def members(base: str) -> set[str]:
    """Return the methods of classes with this base, which document all implementations."""
    names: set[str] = set()
    for file in ROOT.rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and base in map(ast.unparse, node.bases):
                names |= {child.name for child in node.body if isinstance(child, Function)}
    return names


INHERITED = members("Protocol") | HOOKS


@pytest.mark.parametrize("file", modules(), ids=str)
def test_public_names_are_documented_in_plain_form(file):
    tree = ast.parse((ROOT / file).read_text())
    if not tree.body:
        return
    problems = []
    for name, node in (("module", tree), *public(tree)):
        text = ast.get_docstring(node)
        if text is None:
            implements = "." in name and name.rpartition(".")[2] in INHERITED
            implements |= name == "main" and file.parts[0] == "cli"  # the module's is the help
            problems += [] if is_stub(node) or implements else [f"{name} has no docstring"]
        elif text.split()[0] in OPENERS.split():
            problems.append(f"{name}: {text.splitlines()[0]}")
    assert not problems, "\n".join(problems)
