"""Clips through the network: spare object slots, stray labels, and precision."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.models.s3 import S3
from s3_jax.training.clip import (
    ClipBatch,
    ClipPrediction,
    active_objects,
    encode_frames,
    object_masks,
    run_clip,
)
from s3_jax.training.draws import draw
from s3_jax.training.step_config import ClipConfig
from tests.support import tiny

CONFIG = tiny.CONFIGS["spatial_semantic"]
FRAMES, SIZE = 3, 32
COUNTS = np.array([2, 1], np.int32)
COLUMN = COUNTS.reshape(-1, 1, 1, 1)


def clips(seed: int = 0) -> ClipBatch:
    """An item of two objects and an item of one; their masks have labels up to 3, so stray ones."""
    random = np.random.default_rng(seed)
    shape = (len(COUNTS), FRAMES, SIZE, SIZE)
    blobs = random.integers(0, 4, (*shape[:2], SIZE // 8, SIZE // 8), dtype=np.uint8)
    masks = np.kron(blobs, np.ones((1, 1, 8, 8), np.uint8))
    return ClipBatch(random.integers(0, 256, (*shape, 3), dtype=np.uint8), masks, COUNTS)


@functools.cache
def predictor(slots: int, dtype: Any = jnp.float32) -> Any:
    """Return a compiled function from a batch to its prediction."""
    config = ClipConfig(num_objects=slots, num_ref_frames=2, deep_update_prob=1.0)
    draws = draw(jax.random.key(0), jnp.arange(len(COUNTS)), FRAMES, 1, config)
    model = S3(CONFIG, dtype=dtype)
    run = jax.jit(lambda variables, batch: run_clip(model, variables, config, batch, draws)[0])
    return functools.partial(run, tiny.variables(CONFIG))


def objects_of(prediction: ClipPrediction, item: int, count: int) -> list[np.ndarray]:
    """Logits of an item's background and first objects."""
    return [np.asarray(x[:, item, : count + 1]) for x in prediction]


@pytest.mark.slow
def test_spare_slots_change_nothing() -> None:
    """Items leave one and two of three slots empty, or none and one of two."""
    batch = clips()
    two, three = predictor(2)(batch), predictor(3)(batch)
    for item, count in enumerate(COUNTS):
        ours, theirs = (objects_of(x, item, int(count)) for x in (three, two))
        for x, y in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(x, y, atol=2e-4, rtol=0)


@pytest.mark.slow
def test_labels_beyond_an_items_objects_are_no_class() -> None:
    """Stray labels count as background, in the first frame too."""
    stray = clips()
    clean = stray._replace(masks=np.where(stray.masks > COLUMN, 0, stray.masks))
    assert np.any(clean.masks[1, 0] != stray.masks[1, 0])
    found = [predictor(2)(batch) for batch in (clean, stray)]
    for x, y in zip(*(objects_of(prediction, 1, 1) for prediction in found), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_half_precision_stays_close_and_gives_float32() -> None:
    batch = clips()
    full, half = predictor(2)(batch), predictor(2, jnp.bfloat16)(batch)
    for x, y in zip(half, full, strict=True):
        assert x.dtype == y.dtype == jnp.float32
    prob = [np.asarray(jax.nn.softmax(x.logits, axis=2)) for x in (full, half)]
    assert 0 < np.abs(prob[0] - prob[1]).mean() < 0.02


def test_masks_and_slots_of_objects() -> None:
    masks = object_masks(jnp.array([[[0, 1, 2, 3]]]), 2)
    np.testing.assert_array_equal(masks, [[[[0, 1, 0, 0]], [[0, 0, 1, 0]]]])
    slots = active_objects(jnp.array([0, 1, 3]), 3)
    np.testing.assert_array_equal(slots, [[0, 0, 0], [1, 0, 0], [1, 1, 1]])


@pytest.mark.slow
def test_frozen_batch_norm_is_that_of_propagation() -> None:
    """Small batches neither move the running statistics nor are normalised by their own."""
    model, variables = S3(CONFIG), tiny.variables(CONFIG)
    images = jnp.asarray(clips().frames, jnp.float32).swapaxes(0, 1) / 255
    moving, moved = encode_frames(model, variables, images)
    frozen, kept = encode_frames(model, variables, images, train=False)
    alone = model.apply(variables, images[0], method=S3.encode_image)
    np.testing.assert_allclose(frozen.pix_feat[0], alone.pix_feat, atol=1e-4)
    assert np.abs(moving.pix_feat - frozen.pix_feat).max() > 1e-3
    unchanged = jax.tree.map(np.array_equal, kept, variables["batch_stats"])
    assert all(jax.tree.leaves(unchanged))
    assert not all(jax.tree.leaves(jax.tree.map(np.array_equal, moved, kept)))


@pytest.mark.slow
def test_gradients_pass_through_frozen_batch_norm() -> None:
    config = ClipConfig(num_objects=2, num_ref_frames=2, freeze_batch_norm=True)
    draws = draw(jax.random.key(0), jnp.arange(len(COUNTS)), FRAMES, 1, config)
    variables = tiny.variables(CONFIG)

    def total(params: Any) -> Any:
        batch = ClipBatch(*map(jnp.asarray, clips()))
        run = run_clip(S3(CONFIG), {**variables, "params": params}, config, batch, draws)
        return jnp.square(run[0].logits).mean()

    gradients = jax.jit(jax.grad(total))(variables["params"])
    norm = gradients["image_encoder"]["spatial_prior"]
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(norm))
