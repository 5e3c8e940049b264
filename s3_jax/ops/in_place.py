"""Windows of the token axis, and control flow that XLA compiles without copying the memory.

A slot is a bucket or an object; arrays are (batch b, slots s, tokens n, channels *c, if any).
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Shaped

Result = TypeVar("Result")
Tokens = Shaped[Array, "b s n *c"]
Update = Callable[[Int[Array, ""], Tokens], Tokens]


def get(
    tokens: Tokens, slot: Int[Array, ""], start: int | Int[Array, ""], size: int
) -> Shaped[Array, "b w *c"]:
    """Tokens start, ..., start + size - 1 of a slot."""
    b, _, _, *channels = tokens.shape
    place = (0, slot, start, *(0 for _ in channels))
    return jnp.squeeze(lax.dynamic_slice(tokens, place, (b, 1, size, *channels)), axis=1)


def put(
    tokens: Tokens,
    slot: Int[Array, ""],
    start: int | Int[Array, ""],
    window: Shaped[Array, "b w *c"],
) -> Tokens:
    """The tokens with a slot's from `start` on replaced by a window, cast to their dtype."""
    place = (0, slot, start, *(0 for _ in tokens.shape[3:]))
    return lax.dynamic_update_slice(tokens, window[:, None].astype(tokens.dtype), place)


def put_in_slots(tokens: Tokens, chosen: Bool[Array, " s"], update: Update) -> Tokens:
    """Applies `update(slot, tokens)`, which only puts, for every chosen slot."""

    def visit(slot: Int[Array, ""], tokens: Tokens) -> Tokens:
        return lax.cond(chosen[slot], lambda t: update(slot, t), lambda t: t, tokens)

    return lax.fori_loop(0, tokens.shape[1], visit, tokens)


def update_slots(tokens: Tokens, chosen: Bool[Array, " s"], update: Update) -> Tokens:
    """Applies `update(slot, tokens)`, which may read too, for every chosen slot.

    A conditional would copy tokens that it both reads and writes. So this is a loop over the chosen
    slots only, which has no reverse-mode derivative.
    """
    order = jnp.argsort(~chosen)
    return lax.fori_loop(0, jnp.sum(chosen), lambda i, t: update(order[i], t), tokens)


def compute_if(condition: Bool[Array, ""], compute: Callable[[], Result]) -> Result:
    """The pytree of arrays that `compute` gives, or zeros at no cost."""

    def nothing() -> Result:
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(compute))

    return lax.cond(condition, compute, nothing)
