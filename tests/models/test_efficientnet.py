"""The compact semantic prior computes what its layers define, and is frozen by default."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.models import efficientnet
from s3_jax.models.efficientnet import EfficientNetLite0, InvertedResidual, part_names
from s3_jax.models.encoders.compact_semantic import CompactSemanticEncoder
from tests.support.marks import slow

IMAGE = jax.random.uniform(jax.random.key(0), (1, 32, 64, 3))


@functools.cache
def variables() -> Any:
    return jax.jit(EfficientNetLite0().init)(jax.random.key(1), IMAGE)


def test_maps_have_the_documented_shapes() -> None:
    maps = jax.eval_shape(EfficientNetLite0().apply, variables(), IMAGE)
    shapes = [x.shape for x in maps]
    assert shapes == [(1, 8, 16, 24), (1, 4, 8, 40), (1, 2, 4, 80), (1, 2, 4, 112), (1, 1, 2, 320)]


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_block_equals_library_convolutions(kernel: int, stride: int) -> None:
    """A block with fresh normalization is three convolutions with "SAME" padding."""
    x = jax.random.normal(jax.random.key(2), (2, 6, 8, 4))
    block = InvertedResidual(kernel, stride, 6, 4)
    params = block.init(jax.random.key(3), x)

    def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1, groups: int = 1) -> jax.Array:
        y = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )  # fmt: skip
        return y / np.sqrt(1 + efficientnet.BATCH_NORM_EPSILON)

    p = params["params"]
    y = jnp.clip(convolve(x, p["expand"]["kernel"][None, None]), 0, 6)
    y = jnp.clip(convolve(y, p["depthwise"][:, :, None], stride, groups=24), 0, 6)
    y = convolve(y, p["project"]["kernel"][None, None])
    expected = x + y if stride == 1 else y
    np.testing.assert_allclose(block.apply(params, x), expected, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize("numbers", [700, 3000])
def test_strips_change_nothing(
    kernel: int, stride: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are computed in strips, of which the last may be short, with equal gradients."""
    x = jax.random.normal(jax.random.key(2), (2, 27, 20, 4))
    block = InvertedResidual(kernel, stride, 6, 4)
    fresh = block.init(jax.random.key(3), x)
    params = jax.tree.map(lambda leaf: leaf + 0.5, fresh["params"])  # biases are 0 at first

    def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
        y = block.apply(fresh | {"params": params}, x)
        return jnp.sum(jnp.square(y)), y

    def results() -> Any:
        gradients, y = jax.grad(loss, (0, 1), has_aux=True)(params, x)
        return gradients, y

    whole = results()
    monkeypatch.setattr(efficientnet, "WIDE", 0)
    monkeypatch.setattr(efficientnet, "STRIP", numbers)
    program = str(jax.make_jaxpr(lambda: block.apply(fresh, x))())
    assert "scan" in program
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(results()), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-6 * float(jnp.abs(a).max()))


@pytest.mark.parametrize("part", [None, slow(0), slow(1), 2])
def test_only_trainable_parts_receive_gradients(part: int | None) -> None:
    trainable = () if part is None else (part,)

    def loss(params: Any) -> jax.Array:
        params = {
            name: jax.lax.stop_gradient(tree)
            if CompactSemanticEncoder().frozen(("backbone", name), trainable)
            else tree
            for name, tree in params.items()
        }
        maps: Any = EfficientNetLite0().apply(variables() | {"params": params}, IMAGE)
        return sum((jnp.sum(jnp.square(x)) for x in maps), start=jnp.zeros(()))

    gradients = jax.jit(jax.grad(loss))(variables()["params"])
    touched = {
        name
        for name, tree in gradients.items()
        if any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(tree))
    }
    assert touched == set([] if part is None else part_names(part))


def test_parts_name_every_parameter_once() -> None:
    names = [name for part in range(len(efficientnet.PARTS)) for name in part_names(part)]
    assert sorted(names) == sorted(variables()["params"])
