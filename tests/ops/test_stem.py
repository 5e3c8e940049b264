"""A ResNet's first layers on blocks of pixels equal the plain ones, including gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.ops import stem
from s3_jax.ops.backend import compiling_for
from s3_jax.ops.pooling import pool_by_window
from s3_jax.ops.stem import convolve_and_pool, convolve_then_pool
from tests.support.gradients import with_gradients

random = np.random.default_rng(0)


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(random.standard_normal(shape), jnp.float32)


def for_tpu(*arguments: jax.Array | None) -> Any:
    with compiling_for("tpu"):
        return convolve_and_pool(*arguments)


# Channels that maps share, and those of each: of an image alone, of masks, of the masks of one.
@pytest.mark.parametrize(("common", "own"), [(0, 3), (3, 2), (3, 1)])
def test_blocks_are_the_layers_one_after_the_other(common: int, own: int) -> None:
    arguments = (
        draw(2, 16, 24, common) if common else None,
        draw(2, 3, 16, 24, own),
        draw(7, 7, common + own, 8) / 10,
        draw(8),
        draw(8),
    )
    ours, theirs = (with_gradients(form)(*arguments) for form in (for_tpu, convolve_then_pool))
    assert ours[0].shape == (6, 4, 6, 8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), ours, theirs)


def test_gradient_goes_to_the_first_of_equal_results() -> None:
    """Where an image is flat, many results of a window are the same."""
    phases = jnp.asarray(random.integers(0, 3, (2, 4, 5, 4, 8)), jnp.float32)

    def pool(phases: jax.Array) -> jax.Array:
        whole = phases.reshape(2, 4, 5, 2, 2, 8).transpose(0, 1, 3, 2, 4, 5)
        return pool_by_window(whole.reshape(2, 8, 10, 8))

    ours, theirs = (with_gradients(form)(phases) for form in (stem._pool_phases, pool))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_sizes_that_are_no_whole_blocks_take_the_plain_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stem, "_in_blocks", None)
    arguments = (draw(1, 14, 16, 0), draw(1, 1, 14, 16, 3), draw(7, 7, 3, 4), draw(4), draw(4))
    assert for_tpu(*arguments).shape == (1, 4, 4, 4)
