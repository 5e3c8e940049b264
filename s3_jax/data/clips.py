"""Training clips, each made from one video by sampling, warping and recolouring frames."""

import dataclasses

import numpy as np
from jaxtyping import Integer, UInt8

from s3_jax.data.augmentation import Size, sample_colours, sample_warps, sample_zoom, zoomed
from s3_jax.data.blur import blur, sample_blurs
from s3_jax.data.colour import ColourChange, recolour
from s3_jax.data.config import DataConfig
from s3_jax.data.decoding import decode_image
from s3_jax.data.merging import Clip, centre, paste
from s3_jax.data.sampling import choose, draw_frames, object_ids, relabel
from s3_jax.data.videos import Video, read_bytes
from s3_jax.data.warp import Colour, Warp, reduction, warp_image, warp_labels
from s3_jax.errors import InputError

# Ids as decoded, before they are relabelled to 8 bits.
Ids = Integer[np.ndarray, "h w"]


@dataclasses.dataclass(frozen=True, eq=False)
class Draft:
    """The choices that define a clip, made before its images are decoded.

    frames: indices within the video, in playing order.
    objects: ids of the chosen objects.
    size: height and width of the video.
    """

    frames: list[int]
    warps: list[Warp]
    objects: list[int]
    size: Size


def sample_clip(
    rng: np.random.Generator, video: Video, config: DataConfig, skip: int
) -> Clip | None:
    """Sample a clip of `config.num_frames` frames, or None if no first frame shows an object.

    Args:
      skip: largest distance between neighbouring frames of the clip.

    Raises:
      InputError: an image or mask is damaged or missing, or they differ in size.
    """
    draft = sample_plan(rng, video, config, skip)
    if draft is None:
        return None
    still = video.num_frames == 1
    masks = _masks(video, draft)
    frames = _frames(rng, video, draft, config, still)
    clip = Clip(frames, masks, len(draft.objects))
    if video.background is None:
        return clip
    return paste(clip, _backdrop(rng, video, config))


def sample_plan(
    rng: np.random.Generator, video: Video, config: DataConfig, skip: int
) -> Draft | None:
    """Sample frames and warps so that the first frame shows an object, or None if that fails.

    Only masks are decoded here, no images.

    Args:
      skip: largest distance between neighbouring frames of the clip.
    """
    still = video.num_frames == 1
    for _ in range(config.seeds_tried):
        frames = draw_frames(
            rng, video.num_frames, config.num_frames, skip, config.reverse, video.empty
        )
        ids = video.ids(frames[0])
        present = object_ids(ids)
        for _ in range(config.crops_tried if present else 0):
            warps = sample_warps(rng, ids.shape, config, still)
            seen = _seen(ids, present, warps[0])
            if seen:
                objects = choose(rng, seen, config.max_objects)
                if not still:
                    warps = _zoom(rng, warps, video.ids(frames[-1]), objects, config)
                return Draft(frames, warps, objects, ids.shape)
    return None


def _zoom(
    rng: np.random.Generator, warps: list[Warp], last: Ids, objects: list[int], config: DataConfig
) -> list[Warp]:
    """Add a zoom to a random fraction of clips; `last` has the ids of the last frame."""
    zoom = sample_zoom(rng, config.video)
    if zoom is None:
        return warps
    shown = warp_labels(relabel(last, objects), warps[-1])
    return zoomed(warps, zoom, centre(shown) or (config.crop / 2, config.crop / 2))


def _seen(ids: Ids, present: list[int], warp: Warp) -> list[int]:
    """Return the ids that are visible in a warped mask."""
    if len(present) > 255:  # more ids than 8 bits can hold: use only the first ones
        present = present[:255]
    labels = warp_labels(relabel(ids, present), warp)
    return [present[label - 1] for label in object_ids(labels)]


def _masks(video: Video, draft: Draft) -> UInt8[np.ndarray, "t h w"]:
    decoded = {index: relabel(video.ids(index), draft.objects) for index in set(draft.frames)}
    for index, labels in decoded.items():
        _require_size(labels.shape, draft.size, 1, f"the mask of frame {index} of {video.name}")
    pairs = zip(draft.frames, draft.warps, strict=True)
    return np.stack([warp_labels(decoded[index], warp) for index, warp in pairs])


def _frames(
    rng: np.random.Generator, video: Video, draft: Draft, config: DataConfig, still: bool
) -> UInt8[np.ndarray, "t h w 3"]:
    finest = reduction(min(warp.step for warp in draft.warps))
    decoded = {index: video.image(index, finest) for index in set(draft.frames)}
    for index, image in decoded.items():
        _require_size(image.shape[:2], draft.size, finest, f"frame {index} of {video.name}")
    images = [decoded[index] for index in draft.frames]
    fitted = [
        warp.for_size(image.shape[:2], draft.size)
        for image, warp in zip(images, draft.warps, strict=True)
    ]
    rendered = _render(images, fitted, sample_colours(rng, config, still), config.fill_colour)
    return blur(rendered, sample_blurs(rng, config.blur, config.crop, len(rendered)))


def _backdrop(rng: np.random.Generator, video: Video, config: DataConfig) -> Clip:
    """Sample a clip without objects from the video's background picture."""
    path = video.background
    assert path is not None
    picture = decode_image(read_bytes(path), str(path))
    warps = sample_warps(rng, picture.shape[:2], config, still=True)
    colours = sample_colours(rng, config, still=True)
    frames = _render([picture] * config.num_frames, warps, colours, fill=None)
    return Clip(frames, np.zeros(frames.shape[:3], np.uint8), 0)


def _render(
    images: list[np.ndarray],
    warps: list[Warp],
    colours: list[list[ColourChange]],
    fill: Colour | None,
) -> UInt8[np.ndarray, "t h w 3"]:
    """Warp and recolour each image."""
    parts = zip(images, warps, colours, strict=True)
    return np.stack(
        [recolour(warp_image(image, warp, fill), changes) for image, warp, changes in parts]
    )


def _require_size(size: tuple[int, ...], expected: Size, divisor: int, what: str) -> None:
    """Require the expected size, or that size divided by `divisor` up to rounding.

    Raises:
      InputError: the size is different.
    """
    divided = all(abs(a * divisor - b) < divisor for a, b in zip(size, expected, strict=True))
    if size != expected and not divided:
        raise InputError(
            f"{what} is {size[1]}x{size[0]}, but its first mask is {expected[1]}x{expected[0]}"
        )
