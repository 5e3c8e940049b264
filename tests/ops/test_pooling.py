"""Max pooling and its gradient, against XLA's own."""

import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.ops import pooling
from tests.support.gradients import with_gradients


@pytest.mark.parametrize("size", [(2, 2), (6, 8), (5, 8), (10, 4)])
def test_equals_the_reference_with_its_gradient_where_numbers_tie(size: tuple[int, int]) -> None:
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.integers(-2, 3, (2, *size, 7)), jnp.float32)  # equals in most windows
    found, expected = (
        with_gradients(form)(x) for form in (pooling.max_pool_3x3_stride_2, pooling.pool_by_window)
    )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1][0], expected[1][0], atol=1e-6)
