import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3_jax.ops import similarity
from tests.memory import numpy_memory


def _tokens(array: np.ndarray) -> jax.Array:
    """Recorded B C (T) H W as B N C."""
    return jnp.moveaxis(jnp.asarray(array).reshape(*array.shape[:2], -1), 1, -1)


@pytest.mark.parametrize("variant", ["full", "no_selection", "no_shrinkage", "neither"])
def test_recorded_similarity_of_modules(goldens, variant):
    with np.load(goldens / "memory.npz") as golden:
        key, query, selection = (_tokens(golden[f"memory.in.{x}"]) for x in ("mk", "qk", "qe"))
        shrinkage = _tokens(golden["memory.in.ms"])[..., 0]
        want = golden[f"memory.similarity.{variant}"]
        tolerance = golden[f"tolerance.memory.similarity.{variant}"]
    have = similarity.similarity(
        key,
        shrinkage if variant in ("full", "no_selection") else None,
        query,
        selection if variant in ("full", "no_shrinkage") else None,
    )
    np.testing.assert_allclose(have, want.swapaxes(1, 2), rtol=0, atol=tolerance)


@pytest.mark.parametrize("variant", ["", "_no_selection", "_no_shrinkage"])
def test_recorded_similarity_of_network(goldens, variant):
    with np.load(goldens / "memory.npz") as golden:
        key, shrinkage = (_tokens(golden[f"network.mem.{x}"]) for x in ("key", "shrinkage"))
        query, selection = (_tokens(golden[f"network.{x}"]) for x in ("key", "selection"))
        want = golden[f"network.mem.similarity{variant}"]
        tolerance = golden[f"tolerance.network.mem.similarity{variant}"]
    have = similarity.similarity(
        key,
        None if variant == "_no_shrinkage" else shrinkage[..., 0],
        query,
        None if variant == "_no_selection" else selection,
    )
    np.testing.assert_allclose(have, want.swapaxes(1, 2), rtol=0, atol=tolerance)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10))
def test_matches_its_definition(seed, scale):
    random = np.random.default_rng(seed)
    key, query = (random.normal(size=(n, 8), scale=scale).astype(np.float32) for n in (5, 3))
    shrinkage, selection = 1 + random.random(5), random.random((3, 8))
    arguments = [x.astype(np.float32) for x in (key, shrinkage, query, selection)]
    want = numpy_memory.similarity(*arguments)
    have = similarity.similarity(*map(jnp.asarray, arguments))
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4 * scale**2)


def test_bfloat16_keys_are_computed_in_float32():
    random = np.random.default_rng(0)
    key, query = (jnp.asarray(random.normal(size=(4, 8)), jnp.bfloat16) for _ in range(2))
    have = similarity.similarity(key, None, query, None)
    assert have.dtype == jnp.float32
    exact = similarity.similarity(key.astype(jnp.float32), None, query.astype(jnp.float32), None)
    np.testing.assert_array_equal(have, exact)


def test_tokens_not_valid_are_excluded():
    random = np.random.default_rng(0)
    key, query = (jnp.asarray(random.normal(size=(4, 8)), jnp.float32) for _ in range(2))
    valid = jnp.array([True, False, True, False])
    tokens = similarity.token_features(key, None, valid)
    have = similarity.feature_similarity(similarity.query_features(query), tokens)
    assert (have[:, ~valid] < similarity.EXCLUDED / 2).all()
    want = similarity.similarity(key, None, query, None)
    np.testing.assert_allclose(have[:, valid], want[:, valid], rtol=1e-6, atol=1e-6)


def test_masked_softmax():
    values = jnp.array([[1.0, 2.0, 300.0], [5.0, 6.0, 7.0], [-400.0, 0.0, 0.0]])
    valid = jnp.array([[True, True, False], [False, False, False], [True, False, False]])
    have = similarity.masked_softmax(values, valid)
    np.testing.assert_allclose(have[0, :2], jax.nn.softmax(values[0, :2]), rtol=1e-6)
    np.testing.assert_array_equal(have[:, 2], 0)
    np.testing.assert_array_equal(have[1:], [[0, 0, 0], [1, 0, 0]])


def test_masked_softmax_has_the_gradient_of_a_softmax():
    random = np.random.default_rng(0)
    values, weight = (jnp.asarray(random.normal(size=(2, 6)), jnp.float32) for _ in range(2))
    valid = jnp.broadcast_to(jnp.arange(6)[None, :] < 4, (2, 6)).at[1].set(jnp.arange(6) < 1)

    def masked(values):
        return jnp.sum(weight * similarity.masked_softmax(values, valid))

    def plain(values):
        return jnp.sum(weight[:1, :4] * jax.nn.softmax(values[:1, :4]))

    np.testing.assert_allclose(jax.grad(masked)(values), jax.grad(plain)(values), atol=1e-6)
