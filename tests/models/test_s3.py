"""The whole network on one small frame, and settings that must not change its results."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from s3_jax.models.s3 import S3
from s3_jax.training.parameter_groups import merge, split_frozen
from tests.support import tiny
from tests.support.marks import slow

NET = S3(tiny.SPATIAL_SEMANTIC)
OBJECTS = 3
FAST = ("spatial_semantic", "compact_semantic", "resnet18")


@pytest.fixture(scope="module")
def variables() -> Any:
    return tiny.variables(tiny.SPATIAL_SEMANTIC)


@pytest.fixture(scope="module")
def inputs(variables: Any) -> dict[str, Any]:
    """A frame of two videos with three objects, and its image features."""
    frame = tiny.frame(batch=2, objects=OBJECTS)
    encode = jax.jit(lambda v, image: NET.apply(v, image, method="encode_image"))
    return {"features": encode(variables, frame["image"]), **frame}


def run(variables: Any, inputs: dict[str, Any], chunk_size: int = -1, **arrays: Any) -> Any:
    """`tiny.run_objects`, compiled."""

    @jax.jit
    def line(variables: Any, given: dict[str, Any]) -> Any:
        given = given | {"chunk_size": chunk_size}
        return NET.apply(variables, **given, method=tiny.run_objects)

    return line(variables, inputs | arrays)


@pytest.fixture(scope="module")
def expected(variables: Any, inputs: dict[str, Any]) -> Any:
    return run(variables, inputs)


def assert_close(ours: Any, theirs: Any, tolerance: float = 2e-4) -> None:
    """Equal but for the rounding of sums in another order."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), ours, theirs
    )


@pytest.mark.slow
@pytest.mark.parametrize("chunk_size", [1, 2, OBJECTS, OBJECTS + 1])
def test_chunks_of_objects_change_nothing(
    variables: Any, inputs: dict[str, Any], expected: Any, chunk_size: int
) -> None:
    assert_close(run(variables, inputs, chunk_size=chunk_size), expected)


@pytest.mark.slow
def test_all_in_one_group_is_no_group(
    variables: Any, inputs: dict[str, Any], expected: Any
) -> None:
    options = {"group": jnp.ones((OBJECTS, OBJECTS)), "valid": jnp.ones((2, OBJECTS))}
    assert_close(run(variables, inputs, **options), expected)


def test_padding_objects_change_nothing(
    variables: Any, inputs: dict[str, Any], expected: Any
) -> None:
    """Two more objects with empty masks, whatever their sensory memory, in chunks of 2."""
    extra = 2
    noise = jax.random.normal(jax.random.key(0), inputs["sensory"][:, :extra].shape)
    padded = inputs | {
        "masks": jnp.pad(inputs["masks"], ((0, 0), (0, extra), (0, 0), (0, 0))),
        "sensory": jnp.concatenate([inputs["sensory"], noise], axis=1),
    }
    real = jnp.arange(OBJECTS + extra) < OBJECTS
    found = run(
        variables, padded, chunk_size=2,
        valid=jnp.broadcast_to(real.astype(jnp.float32), (2, OBJECTS + extra)),
        group=jnp.outer(real, real).astype(jnp.float32) + jnp.diag(~real),
    )  # fmt: skip
    assert_close(jax.tree.map(lambda x: x[:, : x.shape[1] - extra], found), expected)
    np.testing.assert_allclose(found["segmented"].prob[:, OBJECTS + 1 :], 0, atol=1e-6)


def test_objects_of_another_group_change_nothing(variables: Any, inputs: dict[str, Any]) -> None:
    """An object's pixels and queries, from the fused features on, do not depend on other groups."""
    group = jnp.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    h, w, c = inputs["sensory"].shape[2:]
    pixel = jax.random.normal(jax.random.key(1), (2, OBJECTS, h, w, c))
    value = jax.random.normal(jax.random.key(2), (2, OBJECTS, 4, c))
    transform = jax.jit(lambda *args: NET.apply(variables, *args, method="transform_objects"))
    together = transform(pixel, value, None, group)
    assert_close(jax.tree.map(lambda x: x[:, :2], together), transform(pixel[:, :2], value[:, :2]))


def test_videos_of_a_batch_are_independent(
    variables: Any, inputs: dict[str, Any], expected: Any
) -> None:
    second = jax.tree.map(lambda x: x[1:], inputs)
    assert_close(run(variables, second), jax.tree.map(lambda x: x[1:], expected))


@pytest.mark.slow
def test_vmap_over_videos_is_a_batch(variables: Any, inputs: dict[str, Any], expected: Any) -> None:
    one = lambda given: NET.apply(variables, **given, method=tiny.run_objects)  # noqa: E731
    videos = jax.tree.map(lambda x: x[:, None], inputs)
    found = jax.jit(jax.vmap(one))(videos)
    assert_close(jax.tree.map(lambda x: x[:, 0], found), expected)


def test_folded_skip_is_the_projection_of_f4(variables: Any, inputs: dict[str, Any]) -> None:
    skip, features = variables["params"]["mask_decoder"]["skip4"], inputs["features"]
    expected = np.asarray(features.f4) @ np.asarray(skip["kernel"]) + np.asarray(skip["bias"])
    np.testing.assert_allclose(features.skip4, expected, rtol=1e-4, atol=1e-4)


def test_probabilities_are_a_partition(expected: Any) -> None:
    prob = np.asarray(expected["segmented"].prob)
    assert prob.shape == (2, OBJECTS + 1, 32, 64)
    np.testing.assert_allclose(prob.sum(axis=1), 1, atol=1e-5)
    assert prob.min() >= 0


FLOAT32 = {"key", "shrinkage", "selection", "sensory", "summaries", "logits", "prob",
           "sensory_input", "auxiliary"}  # fmt: skip
HALF = {"f16", "f8", "f4", "skip8", "skip4", "pix_feat", "value", "pixel"}


@pytest.mark.parametrize("kind", [k if k in FAST else slow(k) for k in tiny.CONFIGS])
def test_half_precision_has_float32_islands(kind: str) -> None:
    """Accumulated or exponentiated values stay float32, the rest is bfloat16."""
    net = S3(tiny.CONFIGS[kind], dtype=jnp.bfloat16)
    frame = tiny.frame(objects=1 if kind == "single_object" else 2)

    def line(image: jax.Array, masks: jax.Array, sensory: jax.Array) -> Any:
        params = net.init(jax.random.key(0), image, masks)
        features = net.apply(params, image, method="encode_image")
        found = net.apply(params, features, image, masks, sensory, method=tiny.run_objects)
        return features, found

    seen = set()
    for path, x in jax.tree.leaves_with_path(jax.eval_shape(line, **frame)):
        names = [getattr(part, "name", getattr(part, "key", None)) for part in path]
        name = next(name for name in reversed(names) if name is not None)
        seen.add(name)
        assert x.dtype == (jnp.float32 if name in FLOAT32 else jnp.bfloat16), path
    assert seen == FLOAT32 | HALF


@pytest.mark.slow
def test_half_precision_is_close_to_single(variables: Any, inputs: dict[str, Any]) -> None:
    arrays = [inputs[name] for name in ("image", "masks", "sensory")]
    single, half = (
        jax.jit(lambda v, *x, net=net: net.apply(v, *x, method=tiny.run_frame))(variables, *arrays)
        for net in (NET, S3(tiny.SPATIAL_SEMANTIC, dtype=jnp.bfloat16))
    )
    assert all(np.isfinite(x.astype(jnp.float32)).all() for x in jax.tree.leaves(half))
    # Rounding makes some queries choose another token; most pixels must agree all the same.
    difference = np.abs(half["segmented"].prob - single["segmented"].prob)
    assert np.median(difference) < 0.02
    assert difference.mean() < 0.05


@pytest.mark.slow
def test_replicas_normalize_as_one_batch(variables: Any) -> None:
    """Features, statistics and gradients of four frames on two replicas are those of one."""
    image = tiny.frame(batch=4)["image"]

    def train(params: Any, image: jax.Array, axis_name: str | None) -> Any:
        def loss(params: Any) -> Any:
            net = S3(tiny.SPATIAL_SEMANTIC, axis_name=axis_name)
            features, changed = net.apply(
                variables | {"params": params}, image, train=True, method="encode_image",
                mutable="batch_stats",
            )  # fmt: skip
            return jnp.mean(jnp.sin(features.pix_feat)), (features, changed["batch_stats"])

        gradients, (features, stats) = jax.grad(loss, has_aux=True)(params)
        if axis_name:
            gradients = jax.lax.pmean(gradients, axis_name)
        return gradients, stats, features

    params = variables["params"]
    whole = jax.jit(lambda p, x: train(p, x, None))(params, image)
    split = image.reshape(2, 2, *image.shape[1:])
    replicated = jax.vmap(lambda x: train(params, x, "replicas"), axis_name="replicas")
    gradients, stats, features = jax.jit(replicated)(split)
    for many, one in ((gradients, whole[0]), (stats, whole[1])):
        jax.tree.map(lambda x: np.testing.assert_array_equal(x[0], x[1]), many)
        assert_close(jax.tree.map(lambda x: x[0], many), one, tolerance=5e-4)
    merged = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), features)
    assert_close(merged, whole[2], tolerance=5e-4)
    before = variables["batch_stats"]["image_encoder"]
    moved = jax.tree.map(lambda a, b: bool((a[0] != b).any()), stats["image_encoder"], before)
    assert any(jax.tree.leaves(moved))


def gradients_of(net: S3, variables: Any, remat: bool = False) -> dict[str, np.ndarray]:
    """Path -> gradient of a loss on all outputs of a frame."""
    arrays = tiny.frame(objects=2)

    def line(params: Any) -> Any:
        trained, frozen = split_frozen(params, net)
        params = merge(trained, jax.lax.stop_gradient(frozen))
        state = {"params": params, "batch_stats": variables["batch_stats"]}
        return net.apply(state, **arrays, method=tiny.run_frame)

    def loss(params: Any) -> jax.Array:
        found = (jax.checkpoint(line) if remat else line)(params)
        return sum((jnp.mean(jnp.sin(x)) for x in jax.tree.leaves(found)), start=jnp.zeros(()))

    found = jax.jit(jax.grad(loss))(variables["params"])
    return {path: np.asarray(x) for path, x in flatten_dict(found, sep="/").items()}


@pytest.fixture(scope="module")
def gradients(variables: Any) -> dict[str, np.ndarray]:
    return gradients_of(NET, variables)


VIT = "image_encoder/vit/"


@pytest.mark.slow
def test_gradients_reach_everything_but_the_frozen_vit(gradients: dict[str, np.ndarray]) -> None:
    assert all(np.isfinite(x).all() for x in gradients.values())
    without = {path for path, x in gradients.items() if not x.any()}
    assert without == {path for path in gradients if path.startswith(VIT)}


@pytest.mark.slow
def test_nothing_is_frozen_but_in_training(variables: Any) -> None:
    """Gradients of what a frame is encoded to reach the whole image encoder, and the image."""
    image = tiny.frame()["image"]

    def loss(params: Any, image: jax.Array) -> jax.Array:
        state = {"params": params, "batch_stats": variables["batch_stats"]}
        features = NET.apply(state, image, method="encode_image")
        used = (features.pix_feat, features.skip8, features.skip4)
        return sum((jnp.mean(jnp.sin(x)) for x in used), start=jnp.zeros(()))

    found, of_image = jax.jit(jax.grad(loss, argnums=(0, 1)))(variables["params"], image)
    encoder = flatten_dict(found["image_encoder"], sep="/")
    assert [path for path, x in encoder.items() if not np.any(x)] == []
    assert np.any(of_image)


@pytest.mark.slow
def test_gradients_reach_the_quarter_of_the_vit_that_is_tuned(
    variables: Any, gradients: dict[str, np.ndarray]
) -> None:
    tuned = gradients_of(S3(tiny.SPATIAL_SEMANTIC, trainable_blocks=(3,)), variables)
    assert all(np.isfinite(x).all() for x in tuned.values())
    without = {path for path, x in tuned.items() if not x.any()}
    assert without == {
        path for path in tuned if path.startswith(VIT) and not path.startswith(f"{VIT}blocks_3/")
    }
    others = [path for path in gradients if not path.startswith(VIT)]
    assert_close({x: tuned[x] for x in others}, {x: gradients[x] for x in others})


@pytest.mark.slow
def test_rematerialised_gradients_are_the_same(
    variables: Any, gradients: dict[str, np.ndarray]
) -> None:
    assert_close(gradients_of(NET, variables, remat=True), gradients)
