"""Compiling for tests: quickly, not well."""

from collections.abc import Callable
from typing import Any

import jax


def jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """`jax.jit` without LLVM's optimisation, which takes half of a test's time."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **options)


def with_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    """From the arguments to the function's value and the gradients of a sum over its sines.

    The sines give every element of the value another weight, of either sign.
    """

    @jit
    def both(*arguments: Any) -> tuple[Any, Any]:
        value, pull_back = jax.vjp(function, *arguments)
        return value, pull_back(jax.tree.map(jax.numpy.cos, value))

    return both
