"""Clicks, boxes and an earlier mask as maps alongside an image's features."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from s3_jax.ops.resize import resize_area

# Labels of points: on the object, on the background, unused.
OBJECT, BACKGROUND, NONE = 1, 0, -1
# Stride of previous masks and of the logits.
MASK_STRIDE = 2
NUM_MAPS = 8
# Standard deviations, in pixels, of a click's two marks; the narrow one is at least this wide.
_NARROW, _WIDE = 3.0, 40.0


class Prompts(NamedTuple):
    """Prompts for one object in each of b views; positions are x, y in pixels.

    points: n clicked places.
    labels: one of `OBJECT`, `BACKGROUND` and `NONE` for every point.
    box: left, top, right, bottom; meaningless where `boxed` is 0.
    previous: an earlier probability of the object; meaningless where `given` is 0.
    """

    points: Float[Array, "b n 2"]
    labels: Int[Array, "b n"]
    box: Float[Array, "b 4"]
    boxed: Float[Array, "b"]
    previous: Float[Array, "b h2 w2"]
    given: Float[Array, "b"]


def prompt_maps(prompts: Prompts, stride: int) -> Float[Array, "b h w 8"]:
    """Return maps of prompts at a stride.

    The eight channels are narrow and wide marks of clicks on the object, the same on the
    background, inside, outside and edge of the box, and the previous mask in [-1, 1].
    """
    size = prompts.previous.shape[1] * MASK_STRIDE // stride
    height, width = size, prompts.previous.shape[2] * MASK_STRIDE // stride
    y, x = (stride * (jnp.arange(n) + 0.5) for n in (height, width))
    marks = [
        _marks(prompts, label, sigma, y, x)
        for label in (OBJECT, BACKGROUND)
        for sigma in (max(_NARROW, 0.75 * stride), _WIDE)
    ]
    maps = [*marks, *_box_maps(prompts, stride, y, x)]
    return jnp.concatenate([jnp.stack(maps, -1), _previous(prompts, (height, width))], -1)


def _marks(
    prompts: Prompts, label: int, sigma: float, y: Float[Array, "h"], x: Float[Array, "w"]
) -> Float[Array, "b h w"]:
    """Return the maximum, over points of a label, of a Gaussian around the point."""
    rows = _bell(y.reshape(1, 1, -1) - prompts.points[:, :, 1, None], sigma)
    columns = _bell(x.reshape(1, 1, -1) - prompts.points[:, :, 0, None], sigma)
    rows = rows * (prompts.labels == label)[:, :, None]
    return jnp.max(rows[:, :, :, None] * columns[:, :, None, :], 1)


def _bell(distance: Array, sigma: float) -> Array:
    return jnp.exp(-0.5 * jnp.square(distance / sigma))


def _box_maps(
    prompts: Prompts, stride: int, y: Float[Array, "h"], x: Float[Array, "w"]
) -> list[Float[Array, "b h w"]]:
    left, top, right, bottom = (prompts.box[:, i, None] for i in range(4))
    x, y = x.reshape(1, -1), y.reshape(1, -1)
    across, down = jnp.minimum(x - left, right - x), jnp.minimum(y - top, bottom - y)
    depth = jnp.minimum(across[:, None, :], down[:, :, None]) / stride
    inside = jnp.clip(depth + 0.5, 0, 1)
    edge = jnp.clip(1 - jnp.abs(depth) / 2, 0, 1)
    boxed = prompts.boxed[:, None, None]
    return [inside * boxed, (1 - inside) * boxed, edge * boxed]


def _previous(prompts: Prompts, size: tuple[int, int]) -> Float[Array, "b h w 1"]:
    signed = (2 * prompts.previous - 1) * prompts.given[:, None, None]
    return resize_area(signed[..., None], size)


def similarities(
    features: Float[Array, "b h w c"], prompts: Prompts, stride: int
) -> Float[Array, "b h w 2"]:
    """Return each position's largest cosine to features clicked on object, and on background.

    It is 0 if there is no such click.
    """
    b, h, w, c = features.shape
    norm = jnp.sqrt(jnp.sum(jnp.square(features), -1, keepdims=True) + 1e-6)
    flat = (features / norm).reshape(b, h * w, c)
    column = jnp.clip(prompts.points[:, :, 0] / stride, 0, w - 1).astype(jnp.int32)
    row = jnp.clip(prompts.points[:, :, 1] / stride, 0, h - 1).astype(jnp.int32)
    clicked = jnp.take_along_axis(flat, (row * w + column)[:, :, None], 1)
    cosine = jnp.einsum("bpc,bnc->bpn", flat, clicked)
    found = [_largest(cosine, prompts.labels == label) for label in (OBJECT, BACKGROUND)]
    return jnp.stack(found, -1).reshape(b, h, w, 2)


def _largest(cosine: Float[Array, "b p n"], counts: Array) -> Float[Array, "b p"]:
    largest = jnp.max(jnp.where(counts[:, None, :], cosine, -1.0), -1)
    return jnp.where(jnp.any(counts, 1, keepdims=True), largest, 0.0)
