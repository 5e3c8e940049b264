"""Marks for single cases of parametrized tests."""

from typing import Any

import pytest


def slow(*values: object) -> Any:
    """Return a parametrized test's case that only `make test-slow` runs."""
    return pytest.param(*values, marks=pytest.mark.slow)
