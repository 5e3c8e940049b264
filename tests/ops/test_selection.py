"""Both forms of selecting entries by index are equal, including gradients."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.ops.backend import compiling_for
from s3_jax.ops.selection import take_rows, take_tokens

random = np.random.default_rng(0)
TOKENS = random.normal(size=(2, 7, 3, 4)).astype(np.float32)
OF_TOKENS = random.integers(0, 7, (2, 5, 3))
ROWS = random.normal(size=(2, 6, 2, 3)).astype(np.float32)
OF_ROWS = random.integers(0, 6, (2, 9))


def _expected(name: str) -> np.ndarray:
    if name == "tokens":
        return np.take_along_axis(TOKENS, OF_TOKENS[..., None], axis=1)
    return np.stack([rows[numbers] for rows, numbers in zip(ROWS, OF_ROWS, strict=True)])


CASES: dict[str, tuple[Callable[..., Any], np.ndarray, np.ndarray]] = {
    "tokens": (take_tokens, TOKENS, OF_TOKENS),
    "rows": (take_rows, ROWS, OF_ROWS),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("name", CASES)
def test_takes_exactly_the_entries_named(name: str, platform: str, dtype: str) -> None:
    take, values, index = CASES[name]
    with compiling_for(platform):
        taken = take(jnp.asarray(values, dtype), jnp.asarray(index))
    assert taken.dtype == dtype
    np.testing.assert_array_equal(taken, jnp.asarray(_expected(name), dtype))


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_entries_taken_twice_add_up(name: str) -> None:
    take, values, index = CASES[name]

    def gradient(platform: str) -> jax.Array:
        with compiling_for(platform):
            weighted = lambda x: jnp.sum(jnp.sin(take(x, jnp.asarray(index))))  # noqa: E731
            return jax.grad(weighted)(jnp.asarray(values))

    np.testing.assert_allclose(gradient("tpu"), gradient("cpu"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_on_tpu_nothing_is_gathered_or_scattered(name: str) -> None:
    take, values, index = CASES[name]
    with compiling_for("tpu"):
        loss = lambda x: jnp.sum(take(x, jnp.asarray(index)) ** 2)  # noqa: E731
        program = str(jax.make_jaxpr(jax.grad(loss))(jnp.asarray(values)))
    assert "gather" not in program
    assert "scatter" not in program
