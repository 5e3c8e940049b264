"""Convolutions in the forms of different backends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.ops import convolution
from s3_jax.ops.backend import compiling_for
from s3_jax.ops.convolution import convolve


@pytest.mark.parametrize("channels", [3, 5])
def test_first_convolution_in_blocks_is_the_same_with_gradients(channels: int) -> None:
    """The form for TPUs, whose lanes three or five channels would leave empty."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((2, 12, 20, channels)), jnp.float32)
    kernel = jnp.asarray(random.standard_normal((7, 7, channels, 16)) / 10, jnp.float32)

    def loss(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = convolve(x, kernel, stride=2, padding=3)
        return jnp.sum(jnp.sin(y)), y

    found = []
    for platform in ("tpu", "gpu"):
        with compiling_for(platform):
            found.append(jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x, kernel))
    assert found[0][1].shape == (2, 6, 10, 16)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), *found)


@pytest.mark.parametrize(
    ("shape", "size", "stride"),
    [
        ((1, 12, 20, 9), 7, 2),
        ((1, 11, 20, 3), 7, 2),
        ((1, 12, 20, 3), 3, 2),
        ((1, 12, 20, 3), 7, 1),
    ],
)
def test_other_convolutions_are_not_done_in_blocks(
    shape: tuple[int, ...], size: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolution, "_convolve_blocks", None)
    with compiling_for("tpu"):
        convolve(jnp.zeros(shape), jnp.zeros((size, size, shape[-1], 4)), stride, size // 2)


@pytest.mark.parametrize("size", [(16, 24), (15, 23)])
@pytest.mark.parametrize(("taps", "padding"), [(1, 0), (3, 0), (3, 1), (4, 1), (5, 2), (7, 3)])
def test_first_convolution_on_cpus_is_the_same_with_gradients(
    size: tuple[int, int], taps: int, padding: int
) -> None:
    """The form in blocks, for few channels, equals XLA's own convolution."""
    random = np.random.default_rng(0)
    x = jnp.asarray(random.standard_normal((2, *size, 3)), jnp.float32)
    kernel = jnp.asarray(random.standard_normal((taps, taps, 3, 16)) / 10, jnp.float32)

    def loss(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = convolve(x, kernel, stride=2, padding=padding)
        return jnp.sum(jnp.sin(y)), y

    found = []
    for platform in ("cpu", "gpu"):
        with compiling_for(platform):
            found.append(jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x, kernel))
    # Sums of a thousand numbers, in another order.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-5)
    jax.tree.map(close, *found)
