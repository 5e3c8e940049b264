"""Conversion between a video's frames and the network's input and output sizes.

A frame is resized if its short side is outside the internal sizes, and then padded with zeros on
all sides to a multiple of 32, or 16 (docs/propagation.md, section 1.1). Masks are treated the same.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from s3_jax.config import ModelConfig
from s3_jax.ops.resize import resize_bilinear, resize_masks

MOST_ENLARGED = 2  # times; beyond, enlarging costs time and adds nothing


@dataclasses.dataclass(frozen=True)
class FrameGeometry:
    """Sizes of a video's frames, (height, width) in pixels.

    original: size of the frames as given.
    inner: size at which they are segmented.
    padding: pixels around that (top, bottom, left, right).
    """

    original: tuple[int, int]
    inner: tuple[int, int]
    padding: tuple[int, int, int, int]

    @property
    def padded(self) -> tuple[int, int]:
        """Size that the network sees, (height, width)."""
        top, bottom, left, right = self.padding
        return self.inner[0] + top + bottom, self.inner[1] + left + right


def network_geometry(
    size: tuple[int, int], model: ModelConfig, max_internal_size: int = -1
) -> FrameGeometry:
    """Return the geometry that a network needs for frames of a size (height, width)."""
    return frame_geometry(size, model.size_multiple, max_internal_size, model.min_internal_size)


def frame_geometry(
    size: tuple[int, int], multiple: int, max_internal_size: int = -1, min_internal_size: int = 1
) -> FrameGeometry:
    """Return the geometry for frames of a size (height, width).

    Args:
      multiple: padded sides are multiples of this number of pixels.
      max_internal_size: length to which a longer short side is shrunk; -1 for no limit.
      min_internal_size: length to which a shorter short side is enlarged, within `MOST_ENLARGED`
        and the limit.
    """
    short = min(size)
    wanted = max(short, min(min_internal_size, MOST_ENLARGED * short))
    if max_internal_size > 0:
        wanted = min(wanted, max_internal_size)
    inner = (size[0] * wanted // short, size[1] * wanted // short)
    top, bottom = _split_padding(inner[0], multiple)
    left, right = _split_padding(inner[1], multiple)
    return FrameGeometry(size, inner, (top, bottom, left, right))


def _split_padding(length: int, multiple: int) -> tuple[int, int]:
    excess = -length % multiple
    return excess // 2, excess - excess // 2


def prepare_image(image: UInt8[Array, "h w 3"], geometry: FrameGeometry) -> Float[Array, "1 H W 3"]:
    """Return a frame in [0, 1], resized and padded."""
    x = image.astype(jnp.float32)[None] / 255
    return pad(resize_bilinear(x, geometry.inner), geometry, axis=1)


def pad(x: Float[Array, "..."], geometry: FrameGeometry, axis: int) -> Float[Array, "..."]:
    """Pad two spatial axes with zeros, `axis` and the one after it."""
    top, bottom, left, right = geometry.padding
    padding = [(0, 0)] * x.ndim
    padding[axis : axis + 2] = [(top, bottom), (left, right)]
    return jnp.pad(x, padding)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask (h, w) on the host.

    Hard (bool) masks take the nearest pixel, centre-aligned; soft (float32) ones are interpolated
    bilinearly.
    """
    if mask.shape == size:
        return mask
    if mask.dtype != bool:
        return np.asarray(resize_masks(jnp.asarray(mask)[None, None], size, "bilinear")[0, 0])
    rows, columns = (
        np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(int), old - 1)
        for new, old in zip(size, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, columns)]


def restore(prob: Float[Array, "n H W"], geometry: FrameGeometry) -> Float[Array, "n h w"]:
    """Return probability maps at the video's own size."""
    (height, width), (top, _, left, _) = geometry.inner, geometry.padding
    prob = prob[:, top : top + height, left : left + width]
    return resize_masks(prob[None], geometry.original, "bilinear")[0]
