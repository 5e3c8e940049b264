"""Widening of a single-object network for several objects, directly and through PyTorch's names."""

import dataclasses

import jax
import numpy as np

from s3_jax.conversion import initialise
from s3_jax.conversion.weights import from_torch, to_torch
from s3_jax.models.widening import widen
from tests.support import tiny

SINGLE = tiny.CONFIGS["single_object"]


def test_widens_as_a_converted_network_is_widened() -> None:
    """Both ways are equal to the bit, so a run can be repeated with either."""
    variables = tiny.variables(SINGLE)
    tensors, config, _ = initialise.widen(to_torch(variables, SINGLE), SINGLE, seed=5)
    assert config == dataclasses.replace(SINGLE, single_object=False)
    expected = from_torch(tensors, config)
    del expected["unused"]
    jax.tree.map(np.testing.assert_array_equal, widen(variables, seed=5), expected)


def test_the_seed_draws_the_new_channels_only() -> None:
    variables = tiny.variables(SINGLE)
    first, second = (widen(variables, seed) for seed in (0, 1))
    kernels = [x["params"]["pixel_fuser"]["state_proj"]["kernel"] for x in (first, second)]
    np.testing.assert_array_equal(kernels[0][:-1], kernels[1][:-1])
    assert not np.allclose(kernels[0][-1], kernels[1][-1])
