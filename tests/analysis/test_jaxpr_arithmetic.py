"""Multiplications of traced programs against counts by hand."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AbstractMesh, PartitionSpec

from s3_jax.analysis.jaxpr_arithmetic import traced_flops

X = jnp.ones((4, 6))
Y = jnp.ones((6, 5))
PRODUCT = 2 * 4 * 6 * 5
IMAGE = jnp.ones((1, 8, 8, 3))
KERNEL = jnp.ones((3, 3, 3, 7))
CONVOLUTION = 2 * 8 * 8 * 7 * 3 * 3 * 3


def count(function, *arguments) -> float:
    return traced_flops(jax.make_jaxpr(function)(*arguments))


def convolve(image, kernel, groups=1, stride=1):
    return lax.conv_general_dilated(
        image, kernel, (stride, stride), "SAME", feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def test_matrix_products() -> None:
    assert count(jnp.matmul, X, Y) == PRODUCT
    batched = jnp.ones((3, 4, 6)), jnp.ones((3, 6, 5))
    assert count(jnp.matmul, *batched) == 3 * PRODUCT


def test_all_devices_of_a_mesh_count() -> None:
    rows, mesh = PartitionSpec("x"), AbstractMesh((2,), ("x",))
    half = jax.shard_map(jnp.matmul, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=rows)
    assert count(half, X, Y) == PRODUCT


def test_convolutions() -> None:
    assert count(convolve, IMAGE, KERNEL) == CONVOLUTION
    assert count(functools.partial(convolve, stride=2), IMAGE, KERNEL) == CONVOLUTION / 4
    depthwise = jnp.ones((3, 3, 1, 3))
    assert count(functools.partial(convolve, groups=3), IMAGE, depthwise) == 2 * 64 * 3 * 9


@pytest.mark.parametrize("stride", [1, 2])
def test_backward_passes_of_convolutions_count_alike(stride: int) -> None:
    """Either gradient takes as many products as the forward pass."""
    forwards = functools.partial(convolve, stride=stride)
    loss = lambda *args: jnp.sum(jnp.sin(forwards(*args)))  # noqa: E731
    forward = count(forwards, IMAGE, KERNEL)
    both = count(jax.grad(loss, argnums=(0, 1)), IMAGE, KERNEL)
    assert both == pytest.approx(3 * forward, rel=0.35)


def test_loops_count_in_full_and_conditions_once() -> None:
    def loop(x):
        return lax.scan(lambda carry, _: (jnp.sin(carry @ x), None), x, length=10)[0]

    square = jnp.ones((6, 6))
    assert count(loop, square) == 10 * 2 * 6**3
    branches = lambda x: lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x @ x)  # noqa: E731
    assert count(branches, square) == 2 * 2 * 6**3
    assert count(jax.jit(jax.checkpoint(lambda x: x @ x)), square) == 2 * 6**3


def test_what_is_no_product_is_free() -> None:
    assert count(lambda x: jnp.sum(jnp.exp(x)), X) == 0
