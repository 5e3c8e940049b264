"""A program compiled for TPU, stored as text (see make_program.py)."""

import pytest

from s3_jax.analysis.hlo import Program, parse_program
from tests.analysis.make_program import PROGRAM


@pytest.fixture(scope="session")
def program() -> Program:
    """The stored program."""
    return parse_program(PROGRAM.read_text())
