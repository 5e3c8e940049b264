"""Baselines follow objects that can be followed without training, to the right place."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.benchmarks import label_propagation
from s3_jax.benchmarks.baselines import (
    copy_first_mask,
    hard_labels,
    one_hot,
    warp_by_optical_flow,
)
from s3_jax.models.efficientnet import EfficientNetLite0
from s3_jax.propagation.geometry import FrameGeometry, frame_geometry

SIZE = (96, 128)


def texture(seed: int, size: tuple[int, int]) -> np.ndarray:
    """Soft noise in colours of its own."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 120, (size[0] // 4, size[1] // 4, 3)) + rng.integers(0, 130, 3)
    return np.kron(coarse, np.ones((4, 4, 1))).astype(np.uint8)


def moving_squares(count: int, step: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames and ids of two squares, 5 and 9, on a background that stands still."""
    back, one, two = texture(0, SIZE), texture(1, (32, 32)), texture(2, (32, 32))
    images, masks = [], []
    for t in range(count):
        image, mask = back.copy(), np.zeros(SIZE, np.uint8)
        for picture, id_, row, column in ((one, 5, 0, step * t), (two, 9, 64, 96 - step * t)):
            image[row : row + 32, column : column + 32] = picture
            mask[row : row + 32, column : column + 32] = id_
        images.append(image)
        masks.append(mask)
    return images, masks


def overlap(found: np.ndarray, true: np.ndarray, id_: int) -> float:
    a, b = found == id_, true == id_
    return (a & b).sum() / (a | b).sum()


def test_the_first_mask_is_copied() -> None:
    images, masks = moving_squares(3, 4)
    found = list(copy_first_mask(images, masks[0]))
    assert len(found) == 3
    assert all(np.array_equal(ids, masks[0]) for ids in found)


@pytest.mark.parametrize("step", [0, 3])
def test_optical_flow_takes_the_mask_along(step: int) -> None:
    """Forward flow, or the flow between the wrong frames, would move it the other way."""
    images, masks = moving_squares(6, step)
    found = list(warp_by_optical_flow(images, masks[0]))
    assert len(found) == 6
    assert np.array_equal(found[0], masks[0])
    for id_ in (5, 9):
        assert overlap(found[-1], masks[-1], id_) > 0.65
        assert step == 0 or overlap(masks[0], masks[-1], id_) < 0.4
    assert set(np.unique(found[-1])) <= {0, 5, 9}


def test_labels_need_more_than_half() -> None:
    soft = np.array([[[0.2, 0.5, 0.51, 0.9]], [[0.3, 0.5, 0.1, 0.95]]], np.float32)
    assert hard_labels(soft, np.array([5, 9])).tolist() == [[0, 0, 5, 9]]
    ids = np.array([[0, 9], [5, 5]])
    assert np.array_equal(hard_labels(one_hot(ids, np.array([5, 9])), np.array([5, 9])), ids)


def pixels(geometry: FrameGeometry, variables: Any, image: np.ndarray) -> jax.Array:
    """Return the pixels of each token's square instead of features; frames have whole squares."""
    h, w = (side // 16 for side in geometry.padded)
    squares = image.reshape(h, 16, w, 16, 3).transpose(0, 2, 1, 3, 4).reshape(h * w, -1)
    tokens = squares - 127.0
    return jnp.asarray(tokens / np.linalg.norm(tokens, axis=-1, keepdims=True), jnp.float32)


@pytest.fixture
def plain_features(monkeypatch) -> None:
    monkeypatch.setattr(label_propagation, "_features", pixels)


def test_neighbours_are_found_wherever_they_went(plain_features) -> None:
    """Squares that jump by whole tokens: all of their tokens are in the context, unaltered."""
    images, masks = moving_squares(7, 16)
    found = list(label_propagation.nearest_neighbours({})(images, masks[0]))
    for t in (1, 4, 6):
        for id_ in (5, 9):
            # The labels of squares of 16 pixels, enlarged smoothly: corners are cut off.
            assert overlap(found[t], masks[t], id_) > 0.9, (t, id_)


def test_labels_are_weighted_means_over_the_context(plain_features) -> None:
    """The reference is a plain implementation that handles one token at a time."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (*SIZE, 3), np.uint8) for _ in range(8)]
    geometry = frame_geometry(SIZE, 32)
    first = np.kron(rng.integers(0, 2, (6, 8)), np.ones((16, 16), int)) * 3
    features = [np.asarray(pixels(geometry, {}, image)) for image in images]
    labels = [first[::16, ::16].reshape(-1) / 3.0]
    for t in range(1, 8):
        known = [0, *range(max(1, t - 4), t)]
        keys = np.concatenate([features[s] for s in known])
        values = np.concatenate([labels[s] for s in known])
        row = []
        for token in features[t]:
            cosine = keys @ token
            best = np.argsort(-cosine)[:7]
            weights = np.exp(cosine[best] / 0.07)
            row.append((weights * values[best]).sum() / weights.sum())
        labels.append(np.array(row))
    found = list(label_propagation.nearest_neighbours({})(images, first))
    for t in range(1, 8):
        # In the middle of a square the enlarged labels are nearly the token's own.
        clear = np.abs(labels[t] - 0.5).reshape(6, 8) > 0.2
        middles = found[t][8::16, 8::16] == 3
        assert np.array_equal(middles[clear], (labels[t].reshape(6, 8) > 0.5)[clear])


def test_features_are_those_of_stride_16() -> None:
    net = EfficientNetLite0()
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), image)
    features = functools.partial(label_propagation._features, frame_geometry((90, 130), 32))
    frame = jax.ShapeDtypeStruct((90, 130, 3), np.uint8)
    assert jax.eval_shape(features, variables, frame).shape == (6 * 10, 112)
