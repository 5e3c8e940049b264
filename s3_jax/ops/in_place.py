"""Windows of the token axis, and control flow that XLA compiles without copying the memory.

A slot is a bucket or an object; arrays are (batch b, slots s, tokens n, channels *c, if any).
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int, Shaped

Result = TypeVar("Result")
Tokens = Shaped[Array, "b s n *c"]
Windows = tuple[Shaped[Array, "b w *c"], ...]
Write = Callable[[Int[Array, ""], Tokens], Tokens]


def get(
    tokens: Tokens, slot: Int[Array, ""], start: int | Int[Array, ""], size: int
) -> Shaped[Array, "b w *c"]:
    """Return tokens `start` to `start + size - 1` of a slot."""
    b, _, _, *channels = tokens.shape
    place = _place(tokens, slot, start)
    return jnp.squeeze(lax.dynamic_slice(tokens, place, (b, 1, size, *channels)), axis=1)


def put(
    tokens: Tokens,
    slot: Int[Array, ""],
    start: int | Int[Array, ""],
    window: Shaped[Array, "b w *c"],
) -> Tokens:
    """Overwrite the tokens of a slot from `start` on with a window, cast to their dtype."""
    place = _place(tokens, slot, start)
    return lax.dynamic_update_slice(tokens, window[:, None].astype(tokens.dtype), place)


def _place(
    tokens: Tokens, slot: Int[Array, ""], start: int | Int[Array, ""]
) -> tuple[Int[Array, ""], ...]:
    """Return indices of one integer type, which slicing requires even with `jax_enable_x64`."""
    place = (0, slot, start, *(0 for _ in tokens.shape[3:]))
    return tuple(jnp.asarray(index, jnp.int32) for index in place)


def put_in_slots(tokens: Tokens, chosen: Bool[Array, " s"], write: Write) -> Tokens:
    """Apply `write(slot, tokens)`, which must only write, to every chosen slot."""

    def visit(tokens: Tokens, slot: Int[Array, ""]) -> tuple[Tokens, None]:
        return update_if(chosen[slot], lambda t: write(slot, t), tokens), None

    return _over_slots(visit, tokens)


def update_slots(
    tokens: Tokens,
    chosen: Bool[Array, " s"],
    read: Callable[[Int[Array, ""], Tokens], Windows],
    write: Callable[[Tokens, Int[Array, ""], Windows], Tokens],
) -> Tokens:
    """Apply `write(tokens, slot, read(slot, tokens))` to every chosen slot.

    If one function did both, the conditional would copy the tokens.
    """

    def visit(tokens: Tokens, slot: Int[Array, ""]) -> tuple[Tokens, None]:
        windows = compute_if(chosen[slot], lambda: read(slot, tokens))
        put_windows = lambda tokens: write(tokens, slot, windows)  # noqa: E731
        return update_if(chosen[slot], put_windows, tokens), None

    return _over_slots(visit, tokens)


def _over_slots(
    visit: Callable[[Tokens, Int[Array, ""]], tuple[Tokens, None]], tokens: Tokens
) -> Tokens:
    return lax.scan(visit, tokens, jnp.arange(tokens.shape[1], dtype=jnp.int32))[0]


def compute_if(condition: Bool[Array, ""], compute: Callable[[], Result]) -> Result:
    """Return the arrays that `compute` gives if the condition holds, otherwise zeros."""

    def nothing() -> Result:
        """Return zeros in the shapes of the results."""
        return jax.tree.map(
            lambda x: vary_like(jnp.zeros(x.shape, x.dtype), x), jax.eval_shape(compute)
        )

    return lax.cond(condition, compute, nothing)


def update_if(
    condition: Bool[Array, ""], update: Callable[[Result], Result], state: Result
) -> Result:
    """Return `update(state)`, a pytree of arrays, if the condition holds, otherwise the state.

    Within `jax.shard_map` both branches of a `lax.cond` must vary over the same axes.
    """
    if not jax.sharding.get_abstract_mesh().manual_axes:
        return lax.cond(condition, update, lambda state: state, state)
    leaves, structure = jax.tree.flatten(state)

    def updated(leaves: list[Array]) -> list[Array]:
        """Apply `update` to flattened leaves."""
        return jax.tree.leaves(update(jax.tree.unflatten(structure, leaves)))

    leaves = list(map(vary_like, leaves, jax.eval_shape(updated, leaves)))
    leaves = lax.cond(
        condition,
        lambda leaves: list(map(vary_like, updated(leaves), leaves)),
        lambda leaves: leaves,
        leaves,
    )
    return jax.tree.unflatten(structure, leaves)


def vary_like(x: Shaped[Array, "..."], like: Any) -> Shaped[Array, "..."]:
    """Mark x as varying over the axes of a `jax.shard_map` over which `like` varies.

    like: an array, or its shape and type.
    """
    missing = _varying(like) - _varying(x)
    return lax.pcast(x, tuple(sorted(missing)), to="varying") if missing else x


def _varying(x: Any) -> frozenset[str]:
    described = x if isinstance(x, jax.ShapeDtypeStruct) else jax.typeof(x)
    return getattr(getattr(described, "manual_axis_type", None), "varying", frozenset())
