import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3_jax.benchmarks.boundary import match_boundaries


def boundary_pixels(mask: np.ndarray) -> np.ndarray:
    """Coordinates (n 2), by the definition: differs from right, lower or lower-right neighbour."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    differs = (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1]) | (mask != padded[1:, 1:])
    return np.argwhere(differs)


def near(points: np.ndarray, others: np.ndarray, radius: int) -> int:
    """Count the points that have one of the others within the radius."""
    if not len(points) or not len(others):
        return 0
    squared = ((points[:, None] - others[None]) ** 2).sum(axis=-1)
    return int((squared.min(axis=1) <= radius * radius).sum())


def assert_matches_definition(masks: np.ndarray, radius: int) -> None:
    found = match_boundaries(masks, radius)
    annotation, *predictions = (boundary_pixels(mask) for mask in masks)
    assert found.annotation == len(annotation)
    assert found.predictions == [len(points) for points in predictions]
    assert found.annotation_matched == [near(annotation, p, radius) for p in predictions]
    assert found.predictions_matched == [near(p, annotation, radius) for p in predictions]


@settings(max_examples=150)
@given(
    st.integers(2, 4), st.integers(1, 45), st.integers(1, 45), st.integers(1, 12),
    st.sampled_from([0.02, 0.2, 0.5, 0.97]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_equals_the_definition(n, height, width, radius, density, seed) -> None:
    rng = np.random.default_rng(seed)
    masks = (rng.random((n, height, width)) < density).astype(np.uint8)
    assert_matches_definition(masks, radius)


@pytest.mark.parametrize("height", [7, 8, 9, 63, 64, 65, 79, 80, 81])
def test_bands_meet_exactly(height: int) -> None:
    masks = np.zeros((2, height, 30), np.uint8)
    masks[0, height // 3 :, 5:20] = 1
    masks[1, : height // 2, 9:30] = 1
    assert_matches_definition(masks, 8)


@pytest.mark.parametrize("distance", [1, 7, 8, 9])
def test_radius_is_inclusive(distance: int) -> None:
    masks = np.zeros((2, 40, 40), np.uint8)
    masks[0, 20, 20] = 1
    masks[1, 20, 20 + distance] = 1
    assert_matches_definition(masks, 8)


def test_masks_without_boundary() -> None:
    masks = np.stack([np.zeros((20, 30)), np.ones((20, 30))]).astype(np.uint8)
    found = match_boundaries(masks, 3)
    assert (found.annotation, found.predictions) == (0, [0])
