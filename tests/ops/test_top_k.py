import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export, lax

from s3_jax.ops.similarity import EXCLUDED
from s3_jax.ops.top_k import BLOCK, block_top_k, largest, top_k_mask

# Short rows, which are searched directly; whole blocks; and a part of a block.
LENGTHS = [7, 4 * 3 * BLOCK, 4 * 3 * BLOCK + 5]


def _rows(seed: int, length: int, distinct: int | None) -> np.ndarray:
    """Random rows; of few distinct numbers, so that many tie, or of any."""
    random = np.random.default_rng(seed)
    if distinct is None:
        rows = random.normal(size=(5, length), scale=100)
    else:
        rows = random.integers(-distinct, distinct, size=(5, length)).astype(float)
    rows[random.random(rows.shape) < 0.1] = EXCLUDED
    return rows.astype(np.float32)


@pytest.mark.parametrize("length", LENGTHS)
@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), distinct=st.sampled_from([None, 1, 2, 10]))
def test_blocks_give_what_a_direct_search_does(length, seed, distinct):
    rows = jnp.asarray(_rows(seed, length, distinct))
    value, index = block_top_k(rows, 3)
    direct_value, direct_index = lax.top_k(rows, 3)
    np.testing.assert_array_equal(value, direct_value)
    np.testing.assert_array_equal(index, direct_index)


@pytest.mark.parametrize("k", [1, 3, 7])
@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), distinct=st.sampled_from([None, 1, 2, 10]))
def test_mask_marks_the_largest_and_their_ties(k, seed, distinct):
    rows = _rows(seed, 7, distinct)
    kth = np.sort(rows, axis=1)[:, -k]
    have = jax.jit(top_k_mask, static_argnums=1)(jnp.asarray(rows), k)
    np.testing.assert_array_equal(have, rows >= kth[:, None])


def test_largest_is_top_k_mapped_differentiated_and_exported() -> None:
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 50)), jnp.float32)

    def total(choose):
        return lambda x: jnp.sum(jnp.square(choose(x, 3)[0]))

    expected = lax.top_k(rows, 3)
    for found in (largest(rows, 3), jax.vmap(jax.vmap(lambda row: largest(row, 3)))(rows)):
        jax.tree.map(np.testing.assert_array_equal, found, tuple(expected))
    gradient = jax.grad(total(lax.top_k))(rows)
    np.testing.assert_array_equal(jax.grad(total(largest))(rows), gradient)
    np.testing.assert_array_equal(jax.vmap(jax.grad(total(largest)))(rows), gradient)
    exported = export.export(jax.jit(lambda x: largest(x, 3)))(rows)
    np.testing.assert_array_equal(exported.call(rows)[1], expected[1])
