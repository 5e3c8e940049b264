"""Exact selection of the k largest entries of each row.

`block_top_k` is for CPU and GPU. `top_k_mask` needs neither sorting nor gathering and is for TPU.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jaxtyping import Array, Bool, Float, Int, UInt16, UInt32

# Entries per block. The two searches look at n / BLOCK and k * BLOCK entries; 16 balances them for
# the usual 10,000 to 30,000 tokens and k = 30.
BLOCK = 16
# Columns of a TPU's matrix unit; fewer cost the same.
LANES = 128


def largest_places(values: Float[Array, "*b n"], k: int) -> Int[Array, "*b top"]:
    """Return the indices of the k largest entries of each row, largest first, ties by lowest index.

    This is `lax.top_k`, except that if rows are sharded, each device ranks its own; the compiler
    would first gather all rows on all devices. The result is a constant for differentiation.
    """
    return _places_of(k)(lax.stop_gradient(values))


@functools.cache
def _places_of(k: int) -> Callable[[Array], Array]:
    def rank(values: Array) -> Array:
        return lax.top_k(values, k)[1]

    def partition(mesh: Any, values: Any, _: Any) -> tuple[Any, ...]:
        """Let every device rank its own rows."""
        return mesh, rank, values[0].sharding, (values[0].sharding,)

    spread = custom_partitioning(rank)
    spread.def_partition(
        partition, sharding_rule="... n -> ... k", need_replication_factors=("n", "k")
    )
    mapped = custom_vmap(spread)

    @mapped.def_vmap
    def over_more_rows(size: int, batched: list[bool], values: Array) -> tuple[Array, bool]:
        """Rank the rows of all mapped items together."""
        return mapped(values), True

    places = jax.custom_jvp(mapped)
    places.defjvp(lambda primals, _: _constant(places(*primals)))
    return places


def _constant(places: Array) -> tuple[Array, Any]:
    return places, np.zeros(places.shape, jax.dtypes.float0)


def largest(
    values: Float[Array, "*b n"], k: int
) -> tuple[Float[Array, "*b top"], Int[Array, "*b top"]]:
    """Return the k largest entries of each row, and their indices; see `largest_places`."""
    places = largest_places(values, k)
    return jnp.take_along_axis(values, places, axis=-1, mode="clip"), places


def block_top_k(
    values: Float[Array, "m n"], k: int
) -> tuple[Float[Array, "m top"], Int[Array, "m top"]]:
    """Compute `lax.top_k` of every row, with identical results but fewer comparisons.

    Ties go to the lowest index. The k largest entries lie in the k blocks with the largest maxima.
    Rows are padded to a multiple of BLOCK, which costs a copy. k must not exceed n.
    """
    m, n = values.shape
    if n < 4 * k * BLOCK:
        return largest(values, k)
    values = jnp.pad(values, ((0, 0), (0, -n % BLOCK)), constant_values=-jnp.inf)
    blocks = values.reshape(m, -1, BLOCK)
    best = largest_places(jnp.max(blocks, axis=-1), k)
    best = jnp.sort(best, axis=-1)  # in order of position, which decides ties
    candidates = jnp.take_along_axis(blocks, best[:, :, None], axis=1, mode="clip")
    top, place = largest(candidates.reshape(m, k * BLOCK), k)
    block = jnp.take_along_axis(best, place // BLOCK, axis=1, mode="clip")
    return top, block * BLOCK + place % BLOCK


def top_k_mask(values: Float[Array, "m n"], k: int) -> Bool[Array, "m n"]:
    """Return True for the k largest entries of every row and all that tie with the k-th.

    The k-th largest entry is found bit by bit, with 32 counts over the row. Memory bandwidth limits
    the counts, so the upper 16 bits come first, then the lower bits of entries with the same upper
    bits. k must not exceed n.
    """
    ranks = _as_ordered_integers(values)
    upper = (ranks >> 16).astype(jnp.uint16)
    threshold, above = _largest_with_count(upper, jnp.full(values.shape[0], k, jnp.int32))
    same = upper == threshold[:, None]
    lower = jnp.where(same, ranks.astype(jnp.uint16), 0)
    lower_threshold, _ = _largest_with_count(lower, k - above)
    whole = threshold.astype(jnp.uint32) << 16 | lower_threshold
    return ranks >= whole[:, None]


def _largest_with_count(
    ranks: UInt16[Array, "m n"], wanted: Int[Array, " m"]
) -> tuple[UInt16[Array, " m"], Int[Array, " m"]]:
    """Return the largest number that `wanted` entries of a row reach, and how many exceed it.

    The counts are products with ones, which take half the time of sums by the TPU compiler's
    estimate.
    """
    ones = jnp.ones((ranks.shape[1], LANES), jnp.bfloat16)

    def count(chosen: Bool[Array, "m n"]) -> Int[Array, " m"]:
        """Return the number of chosen entries in each row."""
        # Exact, because zeros and ones are added in float32.
        total = lax.dot(chosen.astype(jnp.bfloat16), ones, preferred_element_type=jnp.float32)
        return total[:, 0].astype(jnp.int32)

    def set_bit(i: Int[Array, ""], threshold: UInt16[Array, " m"]) -> UInt16[Array, " m"]:
        """Set a bit of the threshold if enough entries still reach it."""
        raised = threshold | (jnp.uint16(1) << (15 - i).astype(jnp.uint16))
        return jnp.where(count(ranks >= raised[:, None]) >= wanted, raised, threshold)

    threshold = lax.fori_loop(0, 16, set_bit, jnp.zeros(ranks.shape[0], jnp.uint16))
    return threshold, count(ranks > threshold[:, None])


def _as_ordered_integers(values: Float[Array, "m n"]) -> UInt32[Array, "m n"]:
    """Map float32 numbers to unsigned integers in the same order."""
    values = lax.stop_gradient(values).astype(jnp.float32)
    bits = lax.bitcast_convert_type(values, jnp.uint32)
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits >= sign, ~bits, bits | sign)
