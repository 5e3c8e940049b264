"""Scenes of synthetic videos: their content and motion, without any pixel work."""

import dataclasses

import numpy as np
from jaxtyping import Float, Float32

from s3_jax.data.synthetic_sprites import Picture, Sprite

Number = float | int


@dataclasses.dataclass(frozen=True, eq=False)
class Wave:
    """base + sum of amplitude * sin(rate * t + phase) + drift * t, for each of d values."""

    base: Float[np.ndarray, " d"]
    amplitude: Float[np.ndarray, "d n"]
    rate: Float[np.ndarray, "d n"]
    phase: Float[np.ndarray, "d n"]
    drift: float = 0.0

    def __call__(self, t: Number) -> Float[np.ndarray, " d"]:
        waves = self.amplitude * np.sin(self.rate * t + self.phase)
        return self.base + waves.sum(axis=-1) + self.drift * t


@dataclasses.dataclass(frozen=True, eq=False)
class Ripple:
    """A deformation of a sprite by travelling waves, in units of the sprite's side."""

    amplitude: Float32[np.ndarray, "n 2"]
    direction: Float32[np.ndarray, "n 2"]
    rate: Float32[np.ndarray, " n"]
    phase: Float32[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A sprite on a body: its position (in units of the body), size and swing."""

    picture: Sprite
    offset: tuple[float, float]
    scale: float
    swing: Wave
    ripple: Ripple


@dataclasses.dataclass(frozen=True, eq=False)
class Body:
    """A moving thing of one or more parts; `object_id` is 0 for distractors.

    position: x, y in pixels.
    size: logarithm of the side in pixels, and of the aspect ratio.
    angle: radians.
    """

    object_id: int
    parts: tuple[Part, ...]
    position: Wave
    size: Wave
    angle: Wave


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Everything that defines a synthetic video except the time.

    bodies: back to front.
    camera: pan x, y in pixels, angle in radians, logarithm of the zoom.
    light_map: coarse map of brightness, around 0.
    light: its shift x, y in its own pixels, overall logarithmic strength, contrast.
    grain: sensor noise, twice the frame's size.
    """

    height: int
    width: int
    background: Picture
    camera: Wave
    bodies: tuple[Body, ...]
    light_map: Float32[np.ndarray, "h w"]
    light: Wave
    grain: np.ndarray
    motion_blur: float
