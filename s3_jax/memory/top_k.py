"""Exact selection of the k largest entries of each row.

`block_top_k` is for CPU and GPU; `top_k_mask` uses neither sorting nor gathering, for TPU.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

# Entries per block. The two searches look at n / BLOCK and k * BLOCK entries; 16 balances them for
# the usual 10,000 to 30,000 tokens and k = 30.
BLOCK = 16
# Columns of a TPU's matrix unit; fewer cost the same.
LANES = 128


def block_top_k(
    values: Float[Array, "m n"], k: int
) -> tuple[Float[Array, "m top"], Int[Array, "m top"]]:
    """`lax.top_k` of every row, result for result (ties by lowest index), with fewer comparisons.

    The k largest entries lie in the k blocks with the largest maxima. Rows whose length is no
    multiple of BLOCK are padded first, at the price of a copy. k must not exceed n.
    """
    m, n = values.shape
    if n < 4 * k * BLOCK:
        top, index = lax.top_k(values, k)
        return top, index
    values = jnp.pad(values, ((0, 0), (0, -n % BLOCK)), constant_values=-jnp.inf)
    blocks = values.reshape(m, -1, BLOCK)
    _, best = lax.top_k(jnp.max(blocks, axis=-1), k)
    best = jnp.sort(best, axis=-1)  # in order of position, which decides ties
    candidates = jnp.take_along_axis(blocks, best[:, :, None], axis=1, mode="clip")
    top, place = lax.top_k(candidates.reshape(m, k * BLOCK), k)
    block = jnp.take_along_axis(best, place // BLOCK, axis=1, mode="clip")
    return top, block * BLOCK + place % BLOCK


def top_k_mask(values: Float[Array, "m n"], k: int) -> Bool[Array, "m n"]:
    """True for the k largest entries of every row and for all that tie with the k-th.

    Finds the k-th largest bit by bit: 32 counts over the row, all dense. k must not exceed n. The
    counts are products with ones, which for a TPU's compiler take half the time of sums.
    """
    ranks = _as_ordered_integers(values)
    ones = jnp.ones((values.shape[1], LANES), jnp.bfloat16)

    def count(above: Bool[Array, "m n"]) -> Float[Array, " m"]:
        # Exact: zeros and ones, added up in float32.
        above = above.astype(jnp.bfloat16)
        return lax.dot(above, ones, preferred_element_type=jnp.float32)[:, 0]

    def set_bit(i: Int[Array, ""], threshold: UInt32[Array, " m"]) -> UInt32[Array, " m"]:
        raised = threshold | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
        enough = count(ranks >= raised[:, None]) >= k
        return jnp.where(enough, raised, threshold)

    threshold = lax.fori_loop(0, 32, set_bit, jnp.zeros(values.shape[0], jnp.uint32))
    return ranks >= threshold[:, None]


def _as_ordered_integers(values: Float[Array, "m n"]) -> UInt32[Array, "m n"]:
    """Unsigned integers in the order of the given float32 numbers."""
    bits = lax.bitcast_convert_type(lax.stop_gradient(values), jnp.uint32)
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits >= sign, ~bits, bits | sign)
