"""Synthetic videos with exact masks: textured bodies move, bend and hide one another.

    for frame, mask in synthetic_video(100, 240, 432, num_objects=3, seed=0): ...

A `Scene` is sampled once from a random generator, and `render(scene, t)` renders it at any time, so
one scene can produce clips of any spacing, order and length. Everything is a function of the
generator's seed. Motion is smooth and bounded (sums of sine waves), depth is fixed, parts swing on
their bodies, surfaces ripple, light drifts, and some bodies look alike.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from s3_jax.data.synthetic_render import Frame, Mask, compose, render
from s3_jax.data.synthetic_scene import Body, Number, Part, Ripple, Scene, Wave
from s3_jax.data.synthetic_sprites import Picture, noise, sprite, surface

__all__ = ["Scene", "SceneConfig", "render", "sample_scene", "synthetic_video"]


LEAST_AREA = 12  # visible pixels of every object in the first frame; more in larger frames


@dataclasses.dataclass(frozen=True)
class SceneConfig:
    """Frozen settings of a scene's difficulty.

    distractors: number of bodies that move like objects and may hide them, but are background in
      the mask.
    lookalikes: probability that a body has the shape and surface of an earlier one.
    speed: factor for all motion; at 1, a body crosses the picture in 20 to 100 frames.
    deformation: factor for the bending of bodies; 0 keeps them rigid.
    motion_blur: fraction of the frame interval with the shutter open; 0 gives sharp frames.
    noise: standard deviation of the sensor noise, in grey levels.
    """

    distractors: int = 1
    lookalikes: float = 0.3
    speed: float = 1.0
    deformation: float = 1.0
    motion_blur: float = 0.0
    noise: float = 3.0


def synthetic_video(
    num_frames: int,
    height: int,
    width: int,
    num_objects: int,
    seed: int,
    config: SceneConfig = SceneConfig(),
    pictures: Sequence[Picture] = (),
) -> Iterator[tuple[Frame, Mask]]:
    """Yield frames (RGB, uint8) and their masks (uint8, ids 1..num_objects, 0 for background).

    Every object is visible in the first frame. See `sample_scene` for arguments and errors.
    """
    scene = sample_scene(np.random.default_rng(seed), height, width, num_objects, config, pictures)
    for t in range(num_frames):
        yield render(scene, t)


def sample_scene(
    rng: np.random.Generator,
    height: int,
    width: int,
    num_objects: int,
    config: SceneConfig = SceneConfig(),
    pictures: Sequence[Picture] = (),
) -> Scene:
    """Sample a scene in which every object is visible at t = 0.

    Args:
      pictures: RGB photographs for background and surfaces; without any, textures are procedural.

    Raises:
      ValueError: a size or count is out of range, or the frame has no room for that many objects.
    """
    if height < 16 or width < 16:
        raise ValueError(f"a scene of {width}x{height} is too small: at least 16x16 is needed")
    if not 0 <= num_objects <= 255:
        raise ValueError(f"num_objects is {num_objects}, but must be 0 to 255")
    scene = _sample_empty_scene(rng, height, width, config, pictures)
    side = 1.3 * min(height, width) / np.sqrt(num_objects + config.distractors + 1)
    if num_objects * LEAST_AREA <= height * width:
        looks = _sample_looks(rng, num_objects + config.distractors, side, config, pictures)
        for attempt in range(50):
            bodies = _sample_bodies(rng, scene, looks, num_objects, side, config, 0.94**attempt)
            scene = dataclasses.replace(scene, bodies=bodies)
            if _all_visible(scene, num_objects):
                return scene
    raise ValueError(f"{width}x{height} has no room for {num_objects} visible objects")


def _all_visible(scene: Scene, num_objects: int) -> bool:
    """Return True if every object has enough visible pixels in the first frame."""
    mask = compose(scene, 0)[1]
    areas = np.bincount(mask.ravel(), minlength=num_objects + 1)[1:]
    least = max(LEAST_AREA, min(0.004, 0.02 / max(num_objects, 1)) * mask.size)
    return bool((areas >= least).all())


def _sample_empty_scene(
    rng: np.random.Generator,
    height: int,
    width: int,
    config: SceneConfig,
    pictures: Sequence[Picture],
) -> Scene:
    """Sample background, camera, light and noise."""
    tall, wide = int(1.4 * height), int(1.4 * width)
    grain = rng.normal(0, config.noise, (2 * height, 2 * width, 3))
    return Scene(
        height=height,
        width=width,
        background=surface(rng, tall, wide, pictures),
        camera=_wave(rng, [0, 0, 0, 0], [0.1 * width, 0.1 * height, 0.06, 0.08], config.speed),
        bodies=(),
        light_map=noise(rng, 32, 32, cells=2, octaves=2) - np.float32(0.5),
        light=_wave(rng, [0, 0, 0, 0.3], [10, 10, 0.12, 0.25], config.speed),
        grain=np.round(grain).astype(np.int16),
        motion_blur=config.motion_blur,
    )


def _sample_looks(
    rng: np.random.Generator,
    count: int,
    side: float,
    config: SceneConfig,
    pictures: Sequence[Picture],
) -> list[tuple[Part, ...]]:
    """Sample the parts of every body; some copy those of an earlier one."""
    looks: list[tuple[Part, ...]] = []
    for _ in range(count):
        if looks and rng.random() < config.lookalikes:
            looks.append(looks[rng.integers(len(looks))])
        else:
            looks.append(_sample_parts(rng, side, config, pictures))
    return looks


def _sample_bodies(
    rng: np.random.Generator,
    scene: Scene,
    looks: Sequence[tuple[Part, ...]],
    num_objects: int,
    side: float,
    config: SceneConfig,
    room: float,
) -> tuple[Body, ...]:
    """Sample objects and distractors, and order them randomly in depth.

    Each body starts in its own cell of a grid over the frame.

    Args:
      room: factor for the distance from the cell's centre and (but at least 0.6) for the size;
        smaller values give less overlap.
    """
    columns = int(np.ceil(np.sqrt(len(looks) * scene.width / scene.height)))
    rows = -(-len(looks) // columns)
    cells = rng.permutation(rows * columns)[: len(looks)]
    size = side * max(room, 0.6)
    bodies = []
    for index, (parts, cell) in enumerate(zip(looks, cells, strict=True)):
        place = np.array([cell % columns, cell // columns]) + 0.5 + room * rng.uniform(-0.6, 0.6, 2)
        start = (place / [columns, rows]).clip(0.1, 0.9) * [scene.width, scene.height]
        object_id = index + 1 if index < num_objects else 0
        bodies.append(_sample_body(rng, object_id, parts, scene, start, size, config.speed))
    return tuple(bodies[i] for i in rng.permutation(len(bodies)))


def _sample_body(
    rng: np.random.Generator,
    object_id: int,
    parts: tuple[Part, ...],
    scene: Scene,
    start: np.ndarray,
    side: float,
    speed: float,
) -> Body:
    """Sample a body that is at `start` (x, y in pixels) at t = 0."""
    reach = rng.uniform(0.05, 0.35) * np.array([scene.width, scene.height])
    position = _wave(rng, [0, 0], reach, speed)
    log_side = np.log(side * rng.uniform(0.7, 1.3))
    return Body(
        object_id=object_id,
        parts=parts,
        position=dataclasses.replace(position, base=start - position(0)),
        size=_wave(rng, [log_side, rng.normal(0, 0.2)], [0.2, 0.15], speed),
        angle=_wave(rng, [rng.uniform(0, 2 * np.pi)], [0.5], speed, rng.normal(0, 0.02) * speed),
    )


def _sample_parts(
    rng: np.random.Generator, side: float, config: SceneConfig, pictures: Sequence[Picture]
) -> tuple[Part, ...]:
    """Sample one main sprite, and sometimes smaller ones that swing on its rim."""
    pixels = int(np.clip(side * 1.2, 24, 512))
    parts = [_sample_part(rng, pixels, (0.0, 0.0), 1.0, config, pictures)]
    for _ in range(rng.choice([0, 0, 1, 2])):
        angle, scale = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.6)
        offset = (0.35 * np.cos(angle), 0.35 * np.sin(angle))
        small = max(24, int(pixels * scale))
        parts.append(_sample_part(rng, small, offset, scale, config, pictures))
    return tuple(parts)


def _sample_part(
    rng: np.random.Generator,
    pixels: int,
    offset: tuple[float, float],
    scale: float,
    config: SceneConfig,
    pictures: Sequence[Picture],
) -> Part:
    waves = 3
    frequency = rng.uniform(2, 8, (waves, 1))
    angle = rng.uniform(0, 2 * np.pi, (waves, 1))
    # At most 0.05 of the side per wave, and less for short waves, so the surface never folds.
    amplitude = config.deformation * rng.uniform(-0.2, 0.2, (waves, 2)) / frequency.clip(4)
    ripple = Ripple(
        amplitude.astype(np.float32),
        (frequency * np.hstack([np.cos(angle), np.sin(angle)])).astype(np.float32),
        (config.speed * rng.uniform(0.05, 0.25, waves)).astype(np.float32),
        rng.uniform(0, 2 * np.pi, waves).astype(np.float32),
    )
    swing = 0.0 if offset == (0.0, 0.0) else 0.7 * config.deformation
    return Part(
        picture=sprite(rng, pixels, pictures),
        offset=offset,
        scale=scale,
        swing=_wave(rng, [rng.uniform(0, 2 * np.pi)], [swing], 2 * config.speed),
        ripple=ripple,
    )


def _wave(
    rng: np.random.Generator,
    base: Sequence[Number],
    amplitude: Sequence[Number] | np.ndarray,
    speed: float,
    drift: float = 0.0,
) -> Wave:
    """Sample a slow wave that has most of the amplitude, and two faster, smaller ones."""
    count = len(base)
    share = np.array([[0.75, 0.18, 0.07]]) * rng.uniform(0.5, 1, (count, 3))
    period = rng.uniform(1, 4, (count, 3)) * np.array([[50, 18, 8]])
    return Wave(
        base=np.array(base, float),
        amplitude=np.array(amplitude, float)[:, None] * share,
        rate=speed * 2 * np.pi / period,
        phase=rng.uniform(0, 2 * np.pi, (count, 3)),
        drift=drift,
    )
