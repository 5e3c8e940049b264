"""Resizing equals the recordings and the rules in their plain form, at any size."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.ops.resize import resize_area, resize_bicubic, resize_bilinear, resize_masks
from tests.support.goldens import Recording, pixels


def test_equals_recording(modules: Recording) -> None:
    x = jnp.moveaxis(jnp.asarray(modules["resize.in"]), 1, -1)

    @jax.jit
    def resize(x: jnp.ndarray) -> dict[str, jnp.ndarray]:
        return {
            "resize.area_5x7": resize_area(x, (5, 7)),
            "resize.area_4x6": resize_area(x, (4, 6)),
            "resize.area_half": resize_area(x, (5, 7)),
            "resize.bilinear_x2": resize_bilinear(x, (20, 28)),
            "resize.bilinear_x4": resize_bilinear(x, (40, 56)),
            "resize.bilinear_7x9": resize_bilinear(x, (7, 9)),
        }

    ours = {name: pixels(y) for name, y in resize(x).items()}
    modules.assert_equal(ours, ours)


def bilinear_by_hand(x: np.ndarray, new: int) -> np.ndarray:
    """Interpolation of one line at centres spaced old / new apart."""
    old = len(x)
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    return np.interp(centres, np.arange(old), x)


def area_by_hand(x: np.ndarray, new: int) -> np.ndarray:
    """Mean over every cell that an output cell touches."""
    old = len(x)
    bounds = [(int(np.floor(i * old / new)), int(np.ceil((i + 1) * old / new))) for i in range(new)]
    return np.array([x[start:stop].mean() for start, stop in bounds])


@pytest.mark.parametrize(
    ("old", "new"), [(1, 1), (1, 5), (5, 1), (3, 7), (7, 3), (4, 8), (8, 4), (9, 6), (2, 8)]
)
def test_lines_follow_the_rule(old: int, new: int) -> None:
    line = np.random.default_rng(old).normal(size=old).astype(np.float32)
    upright, flat = jnp.asarray(line).reshape(1, old, 1, 1), jnp.asarray(line).reshape(1, 1, old, 1)
    for resize, by_hand in ((resize_bilinear, bilinear_by_hand), (resize_area, area_by_hand)):
        expected = by_hand(line, new)
        np.testing.assert_allclose(resize(upright, (new, 1)).ravel(), expected, atol=1e-5)
        np.testing.assert_allclose(resize(flat, (1, new)).ravel(), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(10, 21), (3, 4), (5, 14)])
def test_bicubic_is_that_of_opencv(size: tuple[int, int]) -> None:
    """OpenCV has the same kernel; its scale is always the exact ratio of sizes."""
    x = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    scale = (size[0] / 5, size[1] / 7)
    expected = cv2.resize(x, size[::-1], interpolation=cv2.INTER_CUBIC)
    ours = resize_bicubic(jnp.asarray(x)[None, :, :, None], size, scale)[0, :, :, 0]
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_masks_resize_one_by_one() -> None:
    masks = jnp.stack([jnp.zeros((6, 4)), jnp.ones((6, 4))])[None]
    for method in ("area", "bilinear"):
        small = resize_masks(masks, (3, 5), method)
        np.testing.assert_allclose(small, jnp.broadcast_to(masks[:, :, :1, :1], (1, 2, 3, 5)))
