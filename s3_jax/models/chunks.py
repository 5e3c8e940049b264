"""Processing of objects in chunks, so that memory use does not grow with their number."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def map_objects(
    module: nn.Module, fn: Callable[..., Any], chunk_size: int, *arrays: jax.Array
) -> Any:
    """Apply `fn(module, *arrays)` to chunks of the object axis (axis 1) of all arrays.

    Args:
      module: the module whose submodules `fn` calls.
      fn: function of the module and the arrays (with fewer objects) that returns arrays with an
        object axis. Objects must not interact inside it.
      chunk_size: number of objects at a time; 0 or less for all of them at once.

    Returns:
      The result of `fn` on the whole arrays.
    """
    count = arrays[0].shape[1]
    if chunk_size <= 0 or chunk_size >= count:
        return fn(module, *arrays)
    chunks = -(-count // chunk_size)

    def split(x: jax.Array) -> jax.Array:
        """Move chunks of the object axis, padded to a whole number of chunks, to the front."""
        pad = [(0, 0), (0, chunks * chunk_size - count)] + [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, pad).reshape(x.shape[0], chunks, chunk_size, *x.shape[2:])
        return jnp.moveaxis(x, 1, 0)

    def join(x: jax.Array) -> jax.Array:
        """Undo `split`."""
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(x.shape[0], chunks * chunk_size, *x.shape[3:])[:, :count]

    scan = nn.scan(
        lambda m, carry, xs: (carry, fn(m, *xs)),
        variable_broadcast=("params", "batch_stats"),
        split_rngs={"params": False},
    )
    _, outputs = scan(module, (), tuple(split(x) for x in arrays))
    return jax.tree.map(join, outputs)
