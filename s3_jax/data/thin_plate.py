"""Thin-plate splines: smooth random bends of the plane (Bookstein, PAMI 1989)."""

import numpy as np
from jaxtyping import Float
from scipy.interpolate import RBFInterpolator

from s3_jax.data.config import Number

SIDE = 4  # control points per side
STIFFNESS = 5e-4  # keeps nearby points from folding the plane
Bend = RBFInterpolator  # points (m 2) -> displacements (m 2), in crop sides, x before y


def sample_bend(rng: np.random.Generator, strength: Number) -> Bend:
    """Sample a bend with random control points, one in each cell of a grid over the crop.

    Args:
      strength: standard deviation of the control points' displacements, in crop sides.
    """
    cells = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2)
    points = (cells + rng.random(cells.shape)) / SIDE
    return interpolate(points, rng.normal(0, strength, points.shape))


def interpolate(points: Float[np.ndarray, "n 2"], moved: Float[np.ndarray, "n 2"]) -> Bend:
    """Return the smoothest displacement with the given values at the given points."""
    return RBFInterpolator(points, moved, smoothing=STIFFNESS, kernel="thin_plate_spline")
