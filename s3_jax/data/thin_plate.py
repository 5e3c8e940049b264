"""Thin-plate splines: smooth random bends of the plane (Bookstein, PAMI 1989)."""

import dataclasses

import numpy as np
from jaxtyping import Float

from s3_jax.data.config import Number

SIDE = 4  # control points per side


@dataclasses.dataclass(frozen=True, eq=False)
class Bend:
    """A displacement of the plane: f(p) = [1, p] affine + sum_i weights_i u(|p - points_i|).

    Coordinates and displacements are in sides of the crop, x before y; u(r) = r^2 log r^2.
    """

    points: Float[np.ndarray, "n 2"]
    weights: Float[np.ndarray, "n 2"]
    affine: Float[np.ndarray, "3 2"]

    def __call__(self, places: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, "m 2"]:
        """The displacement at each place."""
        return _kernel(places, self.points) @ self.weights + _with_one(places) @ self.affine


def sample_bend(rng: np.random.Generator, strength: Number) -> Bend:
    """A bend of random control points, one in each cell of a grid over the crop.

    strength: standard deviation of the displacement at control points, in sides of the crop.
    """
    cells = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2)
    points = (cells + rng.random(cells.shape)) / SIDE
    return interpolate(points, rng.normal(0, strength, points.shape))


def interpolate(points: Float[np.ndarray, "n 2"], moved: Float[np.ndarray, "n 2"]) -> Bend:
    """The smoothest displacement that takes the given values at the given points."""
    count = len(points)
    system = np.zeros((count + 3, count + 3))
    # The small diagonal keeps close points from folding the plane.
    system[:count, :count] = _kernel(points, points) + 1e-3 * np.eye(count)
    system[:count, count:] = _with_one(points)
    system[count:, :count] = _with_one(points).T
    solution = np.linalg.solve(system, np.vstack([moved, np.zeros((3, 2))]))
    return Bend(points, solution[:count], solution[count:])


def _kernel(
    places: Float[np.ndarray, "m 2"], points: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "m n"]:
    x = places[:, :1] - points[:, 0][None]
    y = places[:, 1:] - points[:, 1][None]
    squared = x * x + y * y
    return squared * np.log(np.maximum(squared, 1e-12))


def _with_one(places: Float[np.ndarray, "m 2"]) -> Float[np.ndarray, "m 3"]:
    return np.column_stack([np.ones(len(places)), places])
