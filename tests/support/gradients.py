"""Compiled values and gradients of functions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def with_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that computes a value and the gradients of the sum of its sines.

    The sines give every element of the value a different weight, of either sign.
    """

    @jax.jit
    def both(*arguments: Any) -> tuple[Any, Any]:
        value, pull_back = jax.vjp(function, *arguments)
        return value, pull_back(jax.tree.map(jnp.cos, value))

    return both
