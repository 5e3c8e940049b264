"""Marks of single cases."""

from typing import Any

import pytest


def slow(*values: object) -> Any:
    """Values of a parametrized test's case that is left to `make test-slow`."""
    return pytest.param(*values, marks=pytest.mark.slow)
