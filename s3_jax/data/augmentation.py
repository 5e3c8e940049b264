"""Random geometric and colour augmentation of a clip's frames (paper section 4.1).

A torchvision pipeline applies several steps in turn (rotate, resize, crop, ...). Here they are
composed into one warp per frame, so each frame is resampled only once and nothing is cropped
between steps.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from s3_jax.data.colour import GREY, ColourChange, sample_colour
from s3_jax.data.config import DataConfig, ImageAugmentationConfig, Number, VideoAugmentationConfig
from s3_jax.data.thin_plate import sample_bend
from s3_jax.data.warp import Matrix, Warp, around, mirror, rotation_shear, scaling, shift

Size = tuple[int, int]  # height, width
CROP_TRIES = 10


@dataclasses.dataclass(frozen=True)
class Zoom:
    """A change of scale over a clip.

    log_scale: logarithms of the factors by which width and height have grown by the last frame.
    place: x, y position of the objects' centre in the crop of the last frame, each from 0 to 1.
    """

    log_scale: tuple[Number, Number]
    place: tuple[Number, Number]


def sample_warps(
    rng: np.random.Generator, size: Size, config: DataConfig, still: bool
) -> list[Warp]:
    """Sample a warp for every frame of a clip.

    Args:
      still: the clip is made from one photograph, so each frame gets its own warp; frames of a
        video share one.
    """
    if still:
        return image_warps(rng, size, config.crop, config.num_frames, config.image)
    return [video_warp(rng, size, config.crop, config.video)] * config.num_frames


def sample_colours(
    rng: np.random.Generator, config: DataConfig, still: bool
) -> list[list[ColourChange]]:
    """Sample each frame's colour changes: its own, then those shared by the whole clip."""
    chosen = config.image if still else config.video
    of_clip = [sample_colour(rng, chosen.clip_colour)]
    if rng.random() < chosen.grey:
        of_clip.append(GREY)
    own = (sample_colour(rng, chosen.frame_colour) for _ in range(config.num_frames))
    return [[change, *of_clip] for change in own]


def image_warps(
    rng: np.random.Generator, size: Size, side: int, count: int, config: ImageAugmentationConfig
) -> list[Warp]:
    """Sample an affine map, resize, crop and bend for each frame, then scale and flip the clip.

    Args:
      size: height and width of the image.
      side: side of the square crop in pixels.
      count: number of frames.
    """
    middle = ((side - 1) / 2, (side - 1) / 2)
    scale = rng.uniform(*config.clip_scale)
    to_crop = around(middle, np.eye(2) / scale)
    if rng.random() < config.flip:
        to_crop = to_crop @ mirror(side)
    draws = _walk(rng, count, config.walk)
    return [_image_warp(rng, size, side, to_crop, config, draw) for draw in draws]


def _walk(rng: np.random.Generator, count: int, reach: Number) -> Float[np.ndarray, "t 5"]:
    """Draw numbers uniformly from [0, 1], each within `reach` of its value in the previous frame.

    With a reach of 1 or more, frames are independent.
    """
    draws = rng.random((count, 5))
    if reach >= 1:
        return draws
    path = np.cumsum(np.vstack([draws[:1], reach * (2 * draws[1:] - 1)]), axis=0)
    return 1 - np.abs(path % 2 - 1)  # reflection at both ends keeps the distribution uniform


def _image_warp(
    rng: np.random.Generator,
    size: Size,
    side: int,
    to_crop: Matrix,
    config: ImageAugmentationConfig,
    draw: Float[np.ndarray, " 5"],
) -> Warp:
    """Build the warp of one frame.

    Args:
      draw: position of rotation, shear, scale and place (x, y) within their ranges, 0 to 1.
    """
    height, width = size
    low, high = config.scale
    rotation, shear = (2 * draw[:2] - 1) * (config.rotation, config.shear)
    moved = rotation_shear(rotation, shear, low + draw[2] * (high - low))
    affine = around(((width - 1) / 2, (height - 1) / 2), np.linalg.inv(moved))
    resized = side / min(size)
    left, top = draw[3:] * (width * resized - side, height * resized - side)
    uncrop = scaling(1 / resized, 1 / resized) @ shift(left, top)
    bends = rng.random() < config.bend
    bend = sample_bend(rng, config.bend_strength) if bends else None
    return Warp(affine @ uncrop, to_crop, side, bend)


def video_warp(
    rng: np.random.Generator, size: Size, side: int, config: VideoAugmentationConfig
) -> Warp:
    """Sample an affine map, a crop of random area and aspect ratio, a resize and a flip.

    Args:
      size: height and width of the frames.
      side: side of the square crop in pixels.
    """
    height, width = size
    moved = rotation_shear(
        rng.uniform(-config.rotation, config.rotation), rng.uniform(-config.shear, config.shear)
    )
    affine = around(((width - 1) / 2, (height - 1) / 2), np.linalg.inv(moved))
    left, top, wide, tall = _sample_box(rng, size, config)
    uncrop = shift(left, top) @ scaling(wide / side, tall / side)
    flip = mirror(side) if rng.random() < config.flip else np.eye(3)
    return Warp(affine @ uncrop, flip, side)


def sample_zoom(rng: np.random.Generator, config: VideoAugmentationConfig) -> Zoom | None:
    """Sample a change of scale over a clip; None keeps the scale constant."""
    if max(config.zoom, config.zoom_aspect) <= 1 or rng.random() >= config.zoom_share:
        return None
    scale = rng.uniform(-1, 1) * np.log(config.zoom)
    aspect = rng.uniform(-1, 1) * np.log(config.zoom_aspect) / 2
    return Zoom((scale + aspect, scale - aspect), tuple(rng.uniform(0.3, 0.7, 2)))


def zoomed(warps: list[Warp], zoom: Zoom, pivot: tuple[Number, Number]) -> list[Warp]:
    """Add a zoom to a clip's warps that grows evenly, starting with no zoom in the first frame.

    Args:
      pivot: the point x, y in the last warp's crop that moves to `zoom.place` in the last frame.
    """
    shares = np.linspace(0, 1, len(warps))
    return [
        _zoomed(warp, zoom, np.array(pivot), share)
        for warp, share in zip(warps, shares, strict=True)
    ]


def _zoomed(warp: Warp, zoom: Zoom, pivot: np.ndarray, share: Number) -> Warp:
    place = (1 - share) * pivot + share * np.array(zoom.place) * warp.side
    shrink = np.diag([*np.exp(-share * np.array(zoom.log_scale)), 1.0])
    return dataclasses.replace(warp, to_crop=warp.to_crop @ shift(*pivot) @ shrink @ shift(*-place))


def _sample_box(
    rng: np.random.Generator, size: Size, config: VideoAugmentationConfig
) -> tuple[Number, Number, Number, Number]:
    """Sample the left, top, width and height of a crop; fall back to the middle of the image."""
    height, width = size
    for _ in range(CROP_TRIES):
        area = height * width * rng.uniform(*config.crop_area)
        aspect = np.exp(rng.uniform(*np.log(config.crop_aspect)))
        wide, tall = np.sqrt(area * aspect), np.sqrt(area / aspect)
        if wide <= width and tall <= height:
            return rng.uniform(0, width - wide), rng.uniform(0, height - tall), wide, tall
    low, high = config.crop_aspect
    tall = min(height, width / low)
    wide = min(width, tall * high)
    return (width - wide) / 2, (height - tall) / 2, wide, tall
