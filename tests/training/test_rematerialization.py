"""Recomputation in the backward pass, measured by multiplications of traced programs."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.analysis.jaxpr_arithmetic import traced_flops
from s3_jax.config import ModelConfig
from s3_jax.models.s3 import S3
from s3_jax.training.clip import encode_frames
from s3_jax.training.parameter_groups import merge, split_frozen
from s3_jax.training.rematerialization import rematerialize
from s3_jax.training.step_config import Rematerialization
from tests.support import tiny

CONFIG = tiny.CONFIGS["spatial_semantic"]
X = jnp.linspace(-1, 1, 36).reshape(6, 6)
PRODUCT = 2 * 6**3


def chain(x: jax.Array) -> jax.Array:
    """Three products, of each of which the backward pass needs the result."""
    for _ in range(3):
        x = jnp.sin(x @ X)
    return x


def loss(what: Rematerialization, in_scan: bool) -> Any:
    body = rematerialize(chain, what, in_scan=in_scan)
    if not in_scan:
        return lambda x: jnp.sum(body(x))
    return lambda x: jnp.sum(jax.lax.scan(lambda carry, _: (body(carry), None), x, length=2)[0])


@pytest.mark.parametrize("in_scan", [False, True])
@pytest.mark.parametrize("what", ["products", "full"])
def test_values_and_gradients_stay_the_same(what: Rematerialization, in_scan: bool) -> None:
    ours, theirs = (jax.jit(jax.value_and_grad(loss(x, in_scan)))(X) for x in (what, "none"))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), ours, theirs)


@pytest.mark.parametrize(("what", "products"), [("none", 6), ("products", 6), ("full", 8)])
def test_what_is_computed_again(what: Rematerialization, products: int) -> None:
    """Forward and backward pass take three products each; kept ones are not computed again."""
    count = traced_flops(jax.make_jaxpr(jax.grad(loss(what, in_scan=False)))(X))
    assert count in (products * PRODUCT, (products + 1) * PRODUCT)


@functools.cache
def encoder_shapes(config: ModelConfig) -> Any:
    """Shapes of the variables of the image encoder."""
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    init = functools.partial(S3(config).init, method=S3.encode_image)
    return jax.eval_shape(init, jax.random.key(0), image)


@functools.cache
def encoder_flops(
    depth: int, what: Rematerialization, trainable: tuple[int, ...] = (), backward: bool = True
) -> float:
    """Return the FLOPs of encoding two frames, with the gradient of the trainable parameters."""
    vit = dataclasses.replace(CONFIG.encoder_settings, depth=depth)
    config = dataclasses.replace(CONFIG, encoder_settings=vit)
    model = S3(config, trainable_blocks=trainable)
    images = jax.ShapeDtypeStruct((2, 1, 32, 32, 3), jnp.float32)
    shapes = encoder_shapes(config)
    trained, frozen = split_frozen(shapes["params"], model)

    def total(trained: Any, frozen: Any, batch_stats: Any, images: Any) -> jax.Array:
        variables = {"params": merge(trained, frozen), "batch_stats": batch_stats}
        encode = rematerialize(functools.partial(encode_frames, model, variables), what)
        features, _ = encode(images)
        return sum((jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(features)), start=jnp.zeros(()))

    program = jax.grad(total) if backward else total
    return traced_flops(jax.make_jaxpr(program)(trained, frozen, shapes["batch_stats"], images))


def vit_flops(*config: Any) -> float:
    """Return the FLOPs of four more blocks of the ViT."""
    return encoder_flops(8, *config) - encoder_flops(4, *config)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["none", "products", "full"])
def test_frozen_vit_costs_its_forward_pass_alone(what: Rematerialization) -> None:
    forward = vit_flops("none", (), False)
    assert forward > 0
    assert vit_flops(what) == forward


@pytest.mark.slow
def test_fine_tuned_blocks_cost_their_backward_pass() -> None:
    """One block of the four: two products in the backward pass for each of the forward pass."""
    forward = vit_flops("none", (), False)
    assert vit_flops("none", (3,)) == pytest.approx(1.5 * forward, rel=1e-3)


@pytest.mark.slow
def test_full_computes_the_encoder_again() -> None:
    kept = encoder_flops(4, "none")
    assert encoder_flops(4, "products") == kept < encoder_flops(4, "full")
