"""Scenes of synthetic videos: content and motion, but no pixels."""

import dataclasses

import numpy as np
from jaxtyping import Float, Float32

from s3_jax.data.synthetic_sprites import Picture, Sprite

Number = float | int


@dataclasses.dataclass(frozen=True, eq=False)
class Wave:
    """Sum base + amplitude * sin(rate * t + phase) + ... + drift * t, for each of d values."""

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
    """A deformation of a sprite by travelling waves, measured in multiples of the sprite's side."""

    amplitude: Float32[np.ndarray, "n 2"]
    direction: Float32[np.ndarray, "n 2"]
    rate: Float32[np.ndarray, " n"]
    phase: Float32[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A sprite on a body: its position and size (relative to the body) and its swing."""

    picture: Sprite
    offset: tuple[float, float]
    scale: float
    swing: Wave
    ripple: Ripple


@dataclasses.dataclass(frozen=True, eq=False)
class Body:
    """A moving body of one or more parts; `object_id` is 0 for distractors.

    position: x, y in pixels.
    size: logarithms of the side in pixels and of the aspect ratio.
    angle: rotation in radians.
    """

    object_id: int
    parts: tuple[Part, ...]
    position: Wave
    size: Wave
    angle: Wave


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Everything that defines a synthetic video, except the time.

    bodies: all bodies, from back to front.
    camera: pan x, y in pixels, angle in radians, logarithm of the zoom.
    light_map: coarse map of brightness, centred on 0.
    light: the map's shift x, y in its own pixels, overall logarithmic strength, and contrast.
    grain: sensor noise on an area of twice the frame's height and width.
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
