"""The convolution with fewer multiplications equals the direct one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.ops import convolution
from s3_jax.ops.winograd import convolve_3x3
from tests.support.gradients import with_gradients


def direct(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The definition, in float64."""
    _, h, w, _ = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [(dy, dx) for dy in range(3) for dx in range(3)]
    seen = np.stack([padded[:, dy : dy + h, dx : dx + w] for dy, dx in taps], axis=3)
    return np.einsum(
        "bhwti,tio->bhwo", seen, kernel.astype(np.float64).reshape(9, *kernel.shape[2:])
    )


def arrays(b: int, h: int, w: int, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    x = np.maximum(draw.standard_normal((b, h, w, inputs)), 0)
    kernel = draw.standard_normal((3, 3, inputs, outputs)) / np.sqrt(9 * inputs)
    return x.astype(np.float32), kernel.astype(np.float32)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 5), (7, 1), (9, 6)])
def test_equals_the_definition_at_every_size(size: tuple[int, int]) -> None:
    x, kernel = arrays(2, *size, 5, 3)
    np.testing.assert_allclose(jax.jit(convolve_3x3)(x, kernel), direct(x, kernel), atol=3e-6)


def test_large_and_many_maps_are_convolved_part_by_part() -> None:
    """In strips of one map, or a few maps at a time, with some left over."""
    for size in ((2, 90, 70), (9, 17, 30)):
        x, kernel = arrays(*size, 4, 3)
        np.testing.assert_allclose(jax.jit(convolve_3x3)(x, kernel), direct(x, kernel), atol=3e-6)


def test_rounding_is_a_small_multiple_of_that_of_the_direct_sum() -> None:
    x, kernel = arrays(1, 32, 32, 128, 16)
    exact = direct(x, kernel)
    both = (convolve_3x3, lambda x, kernel: convolution._convolve(x, kernel, 1, 1))
    ours, theirs = (np.sqrt(np.mean((jax.jit(f)(x, kernel) - exact) ** 2)) for f in both)
    assert ours < 5 * theirs


def test_large_maps_are_convolved_with_fewer_multiplications() -> None:
    """And their derivatives are those of a convolution."""
    x, kernel = (jnp.asarray(x) for x in arrays(1, 46, 46, 128, 128))
    ours = lambda x, kernel: convolution.convolve(x, kernel, 1, 1)  # noqa: E731
    plain = lambda x, kernel: convolution._convolve(x, kernel, 1, 1)  # noqa: E731
    flops = [jax.jit(f).lower(x, kernel).compile().cost_analysis()["flops"] for f in (ours, plain)]
    assert flops[0] < 0.4 * flops[1]
    found, expected = (jax.tree.leaves(with_gradients(f)(x, kernel)) for f in (ours, plain))
    for ours_is, theirs_is in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours_is, theirs_is, rtol=1e-3, atol=1e-4)
