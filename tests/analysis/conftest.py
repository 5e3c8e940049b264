"""A program compiled for TPU, stored as text (see make_program.py)."""

from collections.abc import Iterator

import jaxtyping
import pytest

from s3_jax.analysis.hlo import Program, parse_program
from tests.analysis.make_program import PROGRAM


@pytest.fixture(scope="session")
def program() -> Program:
    """The stored program."""
    return parse_program(PROGRAM.read_text())


@pytest.fixture(scope="module")
def unchecked() -> Iterator[None]:
    """Without checks of shapes: lowering puts descriptions of arrays where arrays belong."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
