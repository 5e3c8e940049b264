"""Building blocks, against recordings or else against PyTorch's rules computed by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.models.layers import (
    BatchNorm,
    ChannelAttentionBlock,
    DepthwiseConv3x3,
    GatedUpdate,
    LayerNorm,
    Upsample2x,
    l2_normalize,
)
from s3_jax.ops.pooling import max_pool_3x3_stride_2
from tests.support.goldens import Recording, object_pixels, pixels
from tests.support.gradients import with_gradients
from tests.support.params import flax_params


def test_gated_update_equals_recording(modules: Recording) -> None:
    """The recorded values are the gates: the convolution passes them on."""
    values, state = (
        jnp.moveaxis(jnp.asarray(modules[f"gru.in.{name}"]), 2, -1) for name in ("values", "h")
    )
    pass_on = np.zeros((3, 3, 24 + 8, 24), np.float32)
    pass_on[1, 1, :24] = np.eye(24)
    params = {"gates": {"kernel": jnp.asarray(pass_on), "bias": jnp.zeros(24)}}
    out = jax.jit(GatedUpdate().apply)({"params": params}, values, state)
    modules.assert_equal({"gru.out": object_pixels(out)}, ["gru.out"])


@pytest.mark.parametrize("case", ["ca_same", "ca_down"])
def test_channel_attention_equals_recording(modules: Recording, case: str) -> None:
    parts = [(f"conv{i}", f"conv{i}", "conv") for i in (1, 2)]
    parts.append(("conv.weight", "channel_kernel", "vector"))
    if case == "ca_down":
        parts.append(("downsample", "shortcut", "conv1x1"))
    params = flax_params(modules.below(f"{case}.w."), *parts)
    x = jnp.moveaxis(jnp.asarray(modules[f"{case}.in"]), 1, -1)
    features = modules[f"{case}.out"].shape[1]
    out = jax.jit(ChannelAttentionBlock(features).apply)({"params": params}, x)
    modules.assert_equal({f"{case}.out": pixels(out)}, [f"{case}.out"])


def normalised(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """PyTorch's rule: the biased variance normalises, the unbiased one is remembered."""
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
    mean, biased, unbiased = rows.mean(0), rows.var(0), rows.var(0, ddof=1)
    return (x - mean) / np.sqrt(biased + 1e-5), 0.1 * mean, 0.9 + 0.1 * unbiased


@pytest.fixture
def batch() -> np.ndarray:
    """(4 3 2 5), far from zero mean and unit variance."""
    return np.random.default_rng(0).normal(3, 2, (4, 3, 2, 5)).astype(np.float32)


def train_batch_norm(x: jax.Array, axis_name: str | None = None) -> tuple[jax.Array, Any]:
    norm = BatchNorm(axis_name)
    variables = norm.init(jax.random.key(0), x)
    return norm.apply(variables, x, train=True, mutable=["batch_stats"])


def test_batch_norm_trains_by_pytorchs_rule(batch: np.ndarray) -> None:
    out, state = jax.jit(train_batch_norm)(jnp.asarray(batch))
    expected, mean, var = normalised(batch)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    np.testing.assert_allclose(state["batch_stats"]["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(state["batch_stats"]["var"], var, rtol=1e-5)
    assert state["batch_stats"]["count"] == 1


@pytest.mark.parametrize("replicate", [jax.vmap, jax.pmap])
def test_replicas_share_the_statistics_of_the_whole_batch(
    batch: np.ndarray, replicate: Any
) -> None:
    """The gradient through the shared statistics is that of the whole batch, too."""
    replicas = 2 if replicate is jax.vmap else jax.local_device_count()
    split = jnp.asarray(batch).reshape(replicas, -1, *batch.shape[1:])

    def loss(x: jax.Array, axis_name: str | None) -> Any:
        out, state = train_batch_norm(x, axis_name)
        return jnp.sum(jnp.sin(out)), (out, state["batch_stats"])

    def in_replica(x: jax.Array) -> Any:
        return jax.grad(loss, has_aux=True)(x, "replicas")

    gradient, (out, stats) = replicate(in_replica, axis_name="replicas")(split)
    whole_gradient, (whole, whole_stats) = jax.jit(lambda x: jax.grad(loss, has_aux=True)(x, None))(
        jnp.asarray(batch)
    )
    np.testing.assert_allclose(out.reshape(batch.shape), whole, atol=1e-5)
    np.testing.assert_allclose(gradient.reshape(batch.shape), whole_gradient, atol=1e-5)
    for name in ("mean", "var"):
        for replica in stats[name]:
            np.testing.assert_allclose(replica, whole_stats[name], rtol=1e-5)


def test_batch_norm_outside_training_uses_and_keeps_its_statistics(batch: np.ndarray) -> None:
    norm, x = BatchNorm(), jnp.asarray(batch)
    params = norm.init(jax.random.key(0), x)["params"]
    stats = {"mean": jnp.arange(5.0), "var": jnp.arange(1.0, 6.0), "count": jnp.array(7)}
    variables = {"params": params, "batch_stats": stats}
    out, state = norm.apply(variables, x, train=False, mutable=["batch_stats"])
    np.testing.assert_allclose(out, (batch - np.arange(5)) / np.sqrt(np.arange(1, 6) + 1e-5),
                               rtol=1e-5)  # fmt: skip
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], stats)


def test_layer_norm_is_exact_far_from_zero() -> None:
    """The mean is taken off before squaring, in float32 also for bfloat16."""
    x = jnp.array([[1000.0, 1001.0, 1002.0, 1003.0]])
    norm = LayerNorm()
    params = {"params": {"scale": jnp.ones(4), "bias": jnp.zeros(4)}}
    expected = np.array([[-1.5, -0.5, 0.5, 1.5]]) / np.sqrt(1.25)
    np.testing.assert_allclose(jnp.asarray(norm.apply(params, x)), expected, rtol=1e-3)
    half: Any = LayerNorm(dtype=jnp.bfloat16).apply(params, x)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), expected, rtol=1e-2)


def test_l2_normalize_has_unit_norm_and_finite_gradients_at_zero() -> None:
    x = jnp.array([[3.0, 4.0], [0.0, 0.0], [1e-15, 0.0], [-2e-7, 0.0]])
    (normal, (gradient,)) = with_gradients(l2_normalize)(x)
    np.testing.assert_allclose(normal[:2], [[0.6, 0.8], [0.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(normal[2:], [[1e-3, 0.0], [-1.0, 0.0]], rtol=1e-5)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(l2_normalize(jnp.ones((2, 4, 3)), axis=1), 0.5)


def test_depthwise_is_a_grouped_convolution() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, 6))
    module = DepthwiseConv3x3()
    params = jax.jit(module.init)(jax.random.key(1), x)["params"]

    def convolve(params: Any, x: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, params["kernel"].reshape(3, 3, 1, 6), (1, 1), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=6,
        ) + params["bias"].reshape(1, 1, 1, 6)  # fmt: skip

    ours = with_gradients(lambda params, x: module.apply({"params": params}, x))(params, x)
    theirs = with_gradients(convolve)(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


def test_upsampling_places_one_block_per_pixel() -> None:
    """out[2i + y, 2j + x] = in[i, j] @ kernel[y, x] + bias: blocks do not overlap."""
    x = jax.random.normal(jax.random.key(0), (1, 2, 3, 4))
    module = Upsample2x(5)
    params = jax.jit(module.init)(jax.random.key(1), x)["params"]
    out = jax.jit(module.apply)({"params": params}, x)
    assert out.shape == (1, 4, 6, 5)
    kernel, bias, source = map(np.asarray, (params["kernel"], params["bias"], x))
    for y, column in np.ndindex(4, 6):
        expected = source[0, y // 2, column // 2] @ kernel[y % 2, column % 2] + bias
        np.testing.assert_allclose(out[0, y, column], expected, rtol=1e-4, atol=1e-5)


def test_max_pool_ignores_the_border() -> None:
    """Negative maps stay negative: zero padding would win."""
    x = -jnp.arange(1.0, 17.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(max_pool_3x3_stride_2(x)[0, :, :, 0], [[-1, -2], [-5, -6]])
