"""Every form of a convolution's gradient equals JAX's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.ops import convolution, convolution_gradients, winograd
from tests.support.gradients import with_gradients

# (input b h w i, kernel size, outputs, stride, padding)
CASES = {
    "fewer multiplications for the kernel": ((2, 9, 6, 32), 3, 40, 1, 1),
    "fewer multiplications for both": ((2, 32, 16, 64), 3, 64, 1, 1),
    "small map": ((2, 5, 6, 64), 3, 72, 1, 1),
    "one output": ((2, 5, 7, 40), 3, 1, 1, 1),
    "few outputs, no padding": ((1, 6, 7, 40), 3, 2, 1, 0),
    "first layer": ((1, 12, 10, 5), 7, 16, 2, 3),
    "first layer, several images": ((2, 12, 10, 3), 7, 16, 2, 3),
    "first layer of an odd size": ((2, 11, 9, 3), 7, 16, 2, 3),
    "stride": ((1, 8, 8, 16), 3, 24, 2, 1),
    "few channels": ((2, 6, 5, 16), 3, 16, 1, 1),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients_equal_those_of_the_plain_convolution(case: tuple) -> None:
    shape, size, outputs, stride, padding = case
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.standard_normal(shape), jnp.float32)
    kernel = draw.standard_normal((size, size, shape[-1], outputs)) / np.sqrt(size**2 * shape[-1])
    kernel = jnp.asarray(kernel, jnp.float32)
    ours = lambda x, kernel: convolution.convolve(x, kernel, stride, padding)  # noqa: E731
    plain = lambda x, kernel: convolution._convolve(x, kernel, stride, padding)  # noqa: E731
    found, expected = (jax.tree.leaves(with_gradients(f)(x, kernel)) for f in (ours, plain))
    for ours_is, theirs_is in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours_is, theirs_is, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (1, 1), (1, 2), (7, 2)])
def test_scaled_convolution_equals_convolution_and_scaling(size: int, stride: int) -> None:
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.standard_normal((2, 8, 6, 32)), jnp.float32)
    kernel = jnp.asarray(draw.standard_normal((size, size, 32, 40)) / 6, jnp.float32)
    factor, shift = (jnp.asarray(draw.standard_normal(40), jnp.float32) for _ in range(2))
    padding = (size - 1) // 2

    def ours(x: jax.Array, kernel: jax.Array, factor: jax.Array, shift: jax.Array) -> jax.Array:
        return convolution.convolve_and_scale(x, kernel, factor, shift, stride, padding)

    def plain(x: jax.Array, kernel: jax.Array, factor: jax.Array, shift: jax.Array) -> jax.Array:
        y = convolution._convolve(x, kernel, stride, padding)
        return y * factor.reshape(1, 1, 1, -1) + shift.reshape(1, 1, 1, -1)

    arguments = (x, kernel, factor, shift)
    found, expected = (jax.tree.leaves(with_gradients(f)(*arguments)) for f in (ours, plain))
    for ours_is, theirs_is in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours_is, theirs_is, rtol=1e-3, atol=2e-4)


def test_rounding_of_the_kernel_gradient_is_like_that_of_the_direct_sum() -> None:
    draw = np.random.default_rng(0)
    x = np.maximum(draw.standard_normal((1, 24, 24, 64)), 0).astype(np.float32)
    grad = draw.standard_normal((1, 24, 24, 64)).astype(np.float32)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [padded[:, dy : dy + 24, dx : dx + 24] for dy in range(3) for dx in range(3)]
    exact = np.stack([np.einsum("bhwi,bhwo->io", tap, grad.astype(np.float64)) for tap in taps])
    exact = exact.reshape(3, 3, 64, 64)
    ours = jax.jit(winograd.kernel_gradient_3x3)(x, grad)
    plain = convolution_gradients.kernel_gradient_by_taps(
        jnp.asarray(x), 3, jnp.asarray(grad), 1, 1
    )
    errors = [np.sqrt(np.mean((found - exact) ** 2)) for found in (ours, plain)]
    assert errors[0] < 5 * errors[1]
