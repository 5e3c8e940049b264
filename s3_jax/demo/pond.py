"""The scene of the bundled clip: three similar koi, seen from above, cross in a garden pond.

    frame, mask = render(pond_scene(), t)    # t from 0 to NUM_FRAMES - 1

All textures are procedural and all paths are fixed. Only the look of markings, pebbles and leaves
comes from a random generator, whose seed is fixed. The fish have the same shape and colours and
nearly the same markings, so only their positions distinguish them. Fish 1 emerges from under a lily
leaf and swims over fish 2, then over the tail of fish 3.
"""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from s3_jax.data.synthetic_scene import Body, Number, Part, Ripple, Scene, Wave
from s3_jax.data.synthetic_sprites import Coverage, Picture, Sprite, Values, noise

HEIGHT, WIDTH, NUM_FRAMES = 240, 432, 54
SPRITE = 192  # pixels; fish are shown at about half this size
CREAM, VERMILION, EMBER = (246, 236, 218), (226, 84, 32), (168, 44, 26)
LEAF_GREEN, LEAF_LIGHT = (62, 112, 48), (128, 168, 84)
SWIM_RATE = 0.55  # radians of the tail's beat per frame
Point = tuple[Number, Number]
Colours = np.ndarray | tuple[int, int, int]
STILL = Ripple(*(np.zeros(shape, np.float32) for shape in ((1, 2), (1, 2), (1,), (1,))))


def pond_scene() -> Scene:
    """Return the complete scene, which is the same for every call."""
    rng = np.random.default_rng(7)
    kind = noise(rng, SPRITE, SPRITE, cells=5, octaves=2)
    markings = [_markings(rng, kind) for _ in range(3)]
    # Start and end in pixels, bend of the path in pixels, phase of the tail's beat.
    fish = [
        _fish(1, markings[0], ((72, 84), (366, 152)), 16, 0.0),
        _fish(2, markings[1], ((356, 72), (92, 164)), -14, 2.1),
        _fish(3, markings[2], ((318, 182), (262, 66)), 10, 4.0),
    ]
    shadows = [_shadow(body) for body in fish]
    leaves = [_leaf(rng, (150, 48), 84, 0.4), _leaf(rng, (28, 214), 116, 2.4)]
    over = (fish[2], fish[1], fish[0])
    return Scene(
        height=HEIGHT,
        width=WIDTH,
        background=_pond_floor(rng),
        camera=_wave((0, 0, 0, 0), ((9, 0.05, 0), (6, 0.06, 1), (0.01, 0.05, 2), (0.02, 0.04, 0))),
        bodies=(*shadows, *over, *leaves),
        light_map=noise(rng, 32, 32, cells=6, octaves=3) - np.float32(0.5),
        light=_wave((0, 0, 0, 0.42), ((6, 0.09, 0), (5, 0.07, 1), (0.03, 0.2, 0), (0.06, 0.15, 0))),
        grain=np.round(rng.normal(0, 1.5, (2 * HEIGHT, 2 * WIDTH, 3))).astype(np.int16),
        motion_blur=0.4,
    )


def _wave(base: Sequence[Number], swings: Sequence[tuple[Number, Number, Number]]) -> Wave:
    """Build a wave from amplitude, rate in radians per frame, and phase of each value."""
    amplitude, rate, phase = np.array(swings, float).T[..., None]
    return Wave(np.array(base, float), amplitude, rate, phase)


def _path(points: tuple[Point, Point], bend: Number) -> Wave:
    """Return a path between two points that takes the whole clip and bends to one side.

    It is half a sine wave: slow at both ends, fastest in the middle.
    """
    start, end = np.array(points, float)
    along = (end - start) / 2
    side = np.array([-along[1], along[0]]) / np.hypot(*along) * bend
    half = np.pi / (NUM_FRAMES - 1) * 0.8
    begin = -0.8 * np.pi / 2
    return Wave(
        base=(start + end) / 2,
        amplitude=np.stack([along / np.sin(0.8 * np.pi / 2), side], axis=-1),
        rate=np.array([[half, 1.4 * half]] * 2),
        phase=np.array([[begin, 1.4 * begin]] * 2),
    )


def _fish(
    object_id: int,
    markings: Picture,
    points: tuple[Point, Point],
    bend: Number,
    phase: float,
) -> Body:
    """Build a koi from a tail, two fins and a body on top, with its nose along the path."""
    position = _path(points, bend)
    ahead = position(NUM_FRAMES / 2 + 1) - position(NUM_FRAMES / 2 - 1)
    heading = float(np.arctan2(ahead[1], ahead[0]))
    beat = lambda amplitude, late: _wave((0,), ((amplitude, SWIM_RATE, phase - late),))  # noqa: E731
    pale = np.full((SPRITE, SPRITE, 3), CREAM, np.uint8)
    parts = (
        Part(_shaded(pale, _tail()), (-0.31, 0.0), 0.62, beat(0.42, 1.3), STILL),
        Part(_shaded(pale, _fin(1)), (0.1, 0.1), 0.4, beat(0.2, 0.5), STILL),
        Part(_shaded(pale, _fin(-1)), (0.1, -0.1), 0.4, beat(0.2, 0.5), STILL),
        Part(_shaded(markings, _torso()), (0.0, 0.0), 1.0, beat(0.0, 0.0), _undulation(phase)),
    )
    return Body(
        object_id=object_id,
        parts=parts,
        position=position,
        size=_wave((np.log(112), 0), ((0.03, 0.06, phase), (0, 0, 0))),
        angle=_wave((heading,), ((0.1, SWIM_RATE, phase + 1.6),)),
    )


def _undulation(phase: float) -> Ripple:
    """Return a sideways ripple that runs from nose to tail."""
    return Ripple(
        np.array([[0, 0.02]], np.float32),
        np.array([[5, 0]], np.float32),
        np.array([SWIM_RATE], np.float32),
        np.array([phase], np.float32),
    )


def _shadow(body: Body) -> Body:
    """Return a body's faint, dark shadow on the ground, offset to one side; it is not an object."""

    def dark(sprite: Sprite) -> Sprite:
        """Return a sprite's blurred, dark silhouette."""
        faint = cv2.GaussianBlur(sprite[..., 3], (0, 0), 4) // 3
        return np.dstack([np.full_like(sprite[..., :3], (6, 26, 30)), faint])

    parts = tuple(dataclasses.replace(part, picture=dark(part.picture)) for part in body.parts)
    lower = dataclasses.replace(body.position, base=body.position.base + np.array([9, 13]))
    return dataclasses.replace(body, object_id=0, parts=parts, position=lower)


def _leaf(rng: np.random.Generator, centre: Point, side: Number, turn: float) -> Body:
    """Build a lily leaf that barely moves and hides whatever swims under it."""
    part = Part(_leaf_sprite(rng), (0.0, 0.0), 1.0, _wave((0,), ((0, 0, 0),)), STILL)
    return Body(
        object_id=0,
        parts=(part,),
        position=_wave(centre, ((3, 0.07, turn), (2, 0.09, turn))),
        size=_wave((np.log(side), 0), ((0, 0, 0), (0, 0, 0))),
        angle=_wave((turn,), ((0.08, 0.06, turn),)),
    )


def _polygon(points: Sequence[Point]) -> Coverage:
    """Fill an outline; x and y are from -0.5 to 0.5, x towards the nose."""
    canvas = np.zeros((SPRITE, SPRITE), np.uint8)
    fixed_point = np.round((np.array(points) + 0.5) * SPRITE * 16).astype(np.int32)
    cv2.fillPoly(canvas, [fixed_point], 255, cv2.LINE_AA, shift=4)
    return canvas


def _torso() -> Coverage:
    along = [0.42, 0.41, 0.38, 0.3, 0.15, 0, -0.15, -0.28, -0.36, -0.4]
    half = [0, 0.03, 0.06, 0.098, 0.13, 0.128, 0.1, 0.06, 0.036, 0.03]
    fine = np.linspace(0, len(along) - 1, 80)
    x, y = (np.interp(fine, range(len(along)), values) for values in (along, half))
    return _polygon([*zip(x, y, strict=True), *zip(x[::-1], -y[::-1], strict=True)])


def _tail() -> Coverage:
    """Draw a fan behind the sprite's centre, which is the point that it swings about."""
    upper = [(0.1, 0.07), (-0.1, 0.08), (-0.3, 0.24), (-0.46, 0.3), (-0.42, 0.16), (-0.3, 0.02)]
    return _polygon([*upper, *((x, -y) for x, y in reversed(upper))])


def _fin(side: int) -> Coverage:
    """Draw a pectoral fin, left (-1) or right (1), pointing outwards and back."""
    outline = [(0.14, 0), (0.04, 0.26), (-0.12, 0.42), (-0.26, 0.4), (-0.26, 0.22), (-0.14, 0)]
    return _polygon([(x, side * y) for x, y in outline])


def _shaded(colours: Picture, shape: Coverage) -> Sprite:
    """Shade a rounded surface: darker towards its rim."""
    depth = cv2.distanceTransform((shape > 127).astype(np.uint8), cv2.DIST_L2, 3)
    light = 0.62 + 0.38 * np.minimum(depth / (0.09 * SPRITE), 1) ** 0.7
    shaded = colours.astype(np.float32) * light[..., None].astype(np.float32)
    return np.dstack([shaded.clip(0, 255).astype(np.uint8), shape])


def _markings(rng: np.random.Generator, kind: Values) -> Picture:
    """Paint cream skin with vermilion patches (mostly placed as in `kind`), scales and two eyes."""
    patches = 0.7 * kind + 0.3 * noise(rng, SPRITE, SPRITE, cells=5, octaves=2)
    edge = np.quantile(patches[SPRITE // 3 : 2 * SPRITE // 3], 0.45)
    red = _ramp((patches - edge) * 18)
    deep = _ramp((patches - edge - 0.2) * 6)
    colours = _mixed(_mixed(CREAM, VERMILION, red), EMBER, 0.6 * deep)
    y, x = np.mgrid[:SPRITE, :SPRITE].astype(np.float32) * np.float32(2 * np.pi / 9)
    scales = 1 - 0.07 * (np.cos(x) * np.cos(y))[..., None]
    picture = (colours * scales).clip(0, 255).astype(np.uint8)
    for side in (-1, 1):
        eye = (round(0.85 * SPRITE), round((0.5 + 0.07 * side) * SPRITE))
        cv2.circle(picture, eye, 4, (24, 20, 20), -1, cv2.LINE_AA)
    return picture


def _leaf_sprite(rng: np.random.Generator) -> Sprite:
    """Draw a round leaf with a notch, light veins and a light rim."""
    angles = np.linspace(0.14, 2 * np.pi - 0.14, 90)
    rim = 0.47 + 0.008 * np.sin(7 * angles)
    outline = np.stack([rim * np.cos(angles), rim * np.sin(angles)], axis=-1)
    shape = _polygon([(0.06, 0.0), *map(tuple, outline)])
    y, x = np.mgrid[:SPRITE, :SPRITE].astype(np.float32) / SPRITE - np.float32(0.5)
    radius, around = np.hypot(x, y), np.arctan2(y, x)
    veins = np.cos(13 * around) ** 40 * (radius < 0.42)
    blotches = 0.5 * noise(rng, SPRITE, SPRITE, cells=4, octaves=4)
    light = (0.55 * veins + blotches + 2 * np.maximum(radius - 0.4, 0)).clip(0, 1)
    return np.dstack([_mixed(LEAF_GREEN, LEAF_LIGHT, light).astype(np.uint8), shape])


def _pond_floor(rng: np.random.Generator) -> Picture:
    """Draw pebbles under green water, 1.4 times the frame in both directions."""
    tall, wide = int(1.4 * HEIGHT), int(1.4 * WIDTH)
    floor = np.full((tall, wide, 3), (52, 78, 74), np.uint8)
    for _ in range(900):
        centre = (int(rng.integers(wide)), int(rng.integers(tall)))
        axes = (int(rng.integers(5, 15)), int(rng.integers(4, 11)))
        turn, tone = float(rng.uniform(0, 180)), rng.uniform(0.55, 1.15)
        colour = np.array([96, 122, 112]) * tone + rng.normal(0, 7, 3)
        cv2.ellipse(floor, centre, axes, turn, 0, 360, (30, 52, 52), 2, cv2.LINE_AA)
        cv2.ellipse(floor, centre, axes, turn, 0, 360, colour.tolist(), -1, cv2.LINE_AA)
    blurred = cv2.GaussianBlur(floor, (0, 0), 1.4).astype(np.float32)
    mottled = 0.8 + 0.4 * noise(rng, tall, wide, cells=12, octaves=4)[..., None]
    water = _mixed(blurred * mottled, (20, 74, 78), 0.45 * noise(rng, tall, wide, 3, 2))
    return water.clip(0, 255).astype(np.uint8)


def _mixed(first: Colours, second: tuple[int, int, int], share: Values) -> np.ndarray:
    """Blend the first colour with the second, whose weight `share` is 0 to 1."""
    one, other = np.asarray(first, np.float32), np.asarray(second, np.float32)
    return one * (1 - share[..., None]) + other * share[..., None]


def _ramp(values: Values) -> Values:
    return (0.5 + values).clip(0, 1)
