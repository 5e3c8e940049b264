"""Products with bfloat16 operands: what is rounded, and where they are used."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.ops import products
from s3_jax.ops.backend import compiling_for
from s3_jax.ops.products import computing_types, operands, product, product_with_rows


def _pair() -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    shapes = (2, 5, 300), (300, 7)
    x, matrix = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)
    return x, matrix


def test_products_are_left_alone_unless_asked():
    x, matrix = _pair()
    np.testing.assert_array_equal(product(x, matrix), x @ matrix)
    np.testing.assert_allclose(product_with_rows(x, matrix.T), x @ matrix, rtol=1e-5, atol=1e-5)


def _with_columns(x: jax.Array, matrix: jax.Array) -> jax.Array:
    return product_with_rows(x, matrix.T)


@pytest.mark.parametrize("multiply", [product, _with_columns])
def test_operands_are_rounded_and_sums_are_not(multiply: Callable[..., jax.Array]):
    x, matrix = _pair()
    with operands(jnp.bfloat16):
        found = jax.jit(multiply)(x, matrix)
    assert found.dtype == jnp.float32
    rounded = (np.asarray(a.astype(jnp.bfloat16), np.float64) for a in (x, matrix))
    np.testing.assert_allclose(found, np.matmul(*rounded), rtol=1e-5, atol=1e-4)
    assert np.abs(found - x @ matrix).max() > 1e-3
    np.testing.assert_allclose(multiply(x, matrix), x @ matrix, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("has", [True, False])
def test_bfloat16_on_a_cpu_stands_for_float32_with_rounded_operands(monkeypatch, has: bool):
    monkeypatch.setattr(products, "multiplies_bfloat16", lambda: has)
    half, single = jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)
    with compiling_for("cpu"):
        assert computing_types("bfloat16") == (single, half if has else None)
        assert computing_types(jnp.float32) == (single, None)
    with compiling_for("tpu"):
        assert computing_types("bfloat16") == (half, None)
