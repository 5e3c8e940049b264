"""Render the picture and the exact mask of a synthetic scene at any time."""

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from s3_jax.data.synthetic_scene import Body, Number, Part, Ripple, Scene

GRID = 8  # pixels between the points at which a deformation is computed
Affine = Float[np.ndarray, "2 3"]
Frame = UInt8[np.ndarray, "h w 3"]
Mask = UInt8[np.ndarray, "h w"]


def render(scene: Scene, t: Number) -> tuple[Frame, Mask]:
    """Render picture and mask at time `t`, in frames; the mask shows the middle of the exposure."""
    sharp, mask = compose(scene, t)
    if scene.motion_blur > 0:
        offsets = np.linspace(-0.5, 0.5, 5) * scene.motion_blur
        moments = [sharp if o == 0 else compose(scene, t + float(o))[0] for o in offsets]
        sharp = np.stack(moments).mean(axis=0, dtype=np.float32).round().astype(np.uint8)
    return _expose(scene, sharp, t), mask


def compose(scene: Scene, t: Number) -> tuple[Frame, Mask]:
    """Draw the background and the bodies from back to front, without light and noise."""
    canvas = _seen_background(scene, t)
    mask = np.zeros((scene.height, scene.width), np.uint8)
    for body in scene.bodies:
        to_frame = _body_transform(body, t)
        for part in body.parts:
            _draw(canvas, mask, part, _compose_affine(to_frame, _part_transform(part, t)), body, t)
    return canvas, mask


def _seen_background(scene: Scene, t: Number) -> Frame:
    """Return the background as the panning, turning and zooming camera sees it."""
    x, y, angle, zoom = scene.camera(t)
    tall, wide = scene.background.shape[:2]
    turn = _rotation(float(angle)) * np.exp(zoom)
    centre = np.array([wide / 2 + x, tall / 2 + y])
    shift = centre - turn @ np.array([scene.width / 2, scene.height / 2])
    return cv2.warpAffine(
        scene.background,
        np.column_stack([turn, shift]),
        (scene.width, scene.height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )


def _body_transform(body: Body, t: Number) -> Affine:
    """Return the map from body coordinates (units of its side, centred) to pixels."""
    log_side, log_aspect = body.size(t)
    stretch = np.diag(np.exp([log_side + log_aspect / 2, log_side - log_aspect / 2]))
    return np.column_stack([_rotation(float(body.angle(t)[0])) @ stretch, body.position(t)])


def _part_transform(part: Part, t: Number) -> Affine:
    """Return the map from sprite coordinates (units of its side, centred) to body coordinates."""
    return np.column_stack([_rotation(float(part.swing(t)[0])) * part.scale, part.offset])


def _rotation(angle: float) -> Float[np.ndarray, "2 2"]:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _compose_affine(outer: Affine, inner: Affine) -> Affine:
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def _draw(canvas: Frame, mask: Mask, part: Part, to_frame: Affine, body: Body, t: Number) -> None:
    """Paint one part onto canvas and mask, in place."""
    box = _bounding_box(to_frame, mask.shape)
    if box is None:
        return
    rows, columns = box
    sprite_xy = _sprite_coordinates(to_frame, part.ripple, rows, columns, t)
    pixels = (sprite_xy + 0.5) * part.picture.shape[0] - 0.5
    layer = cv2.remap(
        part.picture, pixels[..., 0], pixels[..., 1], cv2.INTER_LINEAR, borderValue=(0, 0, 0, 0)
    )
    coverage = cv2.extractChannel(layer, 3)
    weight = coverage.astype(np.float32) / 255
    over = cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB)
    canvas[rows, columns] = cv2.blendLinear(over, canvas[rows, columns], weight, 1 - weight)
    mask[rows, columns][coverage >= 128] = body.object_id


def _bounding_box(to_frame: Affine, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """Return the rows and columns of the frame that a sprite may touch; None if it is outside."""
    margin = 0.65  # half the side, plus the largest ripple
    corners = np.array([[-1, -1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, 1]]) * [margin, margin, 1]
    points = corners @ to_frame.T
    low = np.floor(points.min(axis=0)).astype(int).clip(0)
    high = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 1, [shape[1], shape[0]])
    if (high <= low).any():
        return None
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _sprite_coordinates(
    to_frame: Affine, ripple: Ripple, rows: slice, columns: slice, t: Number
) -> Float32[np.ndarray, "h w 2"]:
    """Return, for each pixel of a box, the point of the sprite that it shows.

    Points are relative to the sprite's centre, in multiples of its side. They are computed on a
    coarse grid that extends one cell beyond the box, and then interpolated.
    """
    height, width = rows.stop - rows.start, columns.stop - columns.start
    y = rows.start + _grid_centres(height)
    x = columns.start + _grid_centres(width)
    pixels = np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32)
    inverse = np.linalg.inv(to_frame[:, :2]).astype(np.float32)
    points = (pixels - to_frame[:, 2].astype(np.float32)[None, None]) @ inverse.T
    waves = np.sin(points @ ripple.direction.T + (ripple.rate * t + ripple.phase)[None, None])
    points = points + waves.astype(np.float32) @ ripple.amplitude
    fine = cv2.resize(points, (len(x) * GRID, len(y) * GRID), interpolation=cv2.INTER_LINEAR)
    return fine[GRID : GRID + height, GRID : GRID + width]


def _grid_centres(length: int) -> Float[np.ndarray, " n"]:
    cells = -(-length // GRID)
    return (np.arange(-1, cells + 1) + 0.5) * GRID - 0.5


def _expose(scene: Scene, frame: Frame, t: Number) -> Frame:
    """Apply light, which drifts over the scene and varies in strength, and sensor noise."""
    x, y, strength, contrast = scene.light(t)
    shift = np.array([[1, 0, x], [0, 1, y]])
    tall, wide = scene.light_map.shape
    local = cv2.warpAffine(scene.light_map, shift, (wide, tall), borderMode=cv2.BORDER_REFLECT)
    coarse = cv2.exp(np.float32(strength) + np.float32(contrast) * local)
    gain = cv2.resize(cv2.merge([coarse] * 3), (scene.width, scene.height))
    lit = cv2.multiply(frame, gain, dtype=cv2.CV_8U)
    seed = round(t * 64)  # a different part of the grain at each time
    top, left = (seed * 7919) % scene.height, (seed * 104729) % scene.width
    piece = scene.grain[top : top + scene.height, left : left + scene.width]
    return cv2.add(lit, piece, dtype=cv2.CV_8U)
