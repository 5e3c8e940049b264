"""Square views of pictures, drawn on the device: whole pictures and zooms to one object."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from s3_jax.data.prompt_pictures import UNKNOWN, Pictures

# Value of pixels beyond a picture's edge, in [0, 1].
BEYOND = 0.5


@dataclasses.dataclass(frozen=True)
class ViewConfig:
    """Frozen settings of drawn views.

    size: height and width in pixels.
    zoom_share: share of views that zoom to the object.
    zoom: smallest and largest side of a zoom, as multiples of the object's box side.
    whole: smallest and largest side of the other views, as multiples of the picture's long side.
    aspect: largest stretch of one axis, as a logarithm.
    rotation: largest rotation, in radians.
    colour: largest change of brightness, contrast and saturation.
    """

    size: int = 320
    zoom_share: float = 0.6
    zoom: tuple[float, float] = (1.05, 2.2)
    whole: tuple[float, float] = (0.6, 1.2)
    aspect: float = 0.3
    rotation: float = 0.15
    colour: float = 0.3


class Views(NamedTuple):
    """Views of b objects: RGB in [0, 1], the object's mask, and where the mask is known."""

    image: Float[Array, "b H W 3"]
    truth: Float[Array, "b H W"]
    known: Float[Array, "b H W"]


def draw_views(pictures: Pictures, keys: Key[Array, "b"], config: ViewConfig) -> Views:
    """Draw one view per key."""
    pictures = jax.tree.map(jnp.asarray, pictures)
    return jax.vmap(lambda key: _view(pictures, key, config))(keys)


def _view(pictures: Pictures, key: Key[Array, ""], config: ViewConfig) -> Views:
    choice, place, colour = jax.random.split(key, 3)
    number = jnp.searchsorted(pictures.upto, jax.random.uniform(choice))
    number = jnp.minimum(number, len(pictures.upto) - 1)
    x, y = _positions(pictures, number, place, config)
    image, truth, known = _look(pictures, pictures.places[number], x, y)
    return Views(_recolour(image, colour, config.colour), truth, known)


def _positions(
    pictures: Pictures, number: Array, key: Key[Array, ""], config: ViewConfig
) -> tuple[Float[Array, "s s"], Float[Array, "s s"]]:
    """Return x and y in the picture for every pixel of the view."""
    keys = jax.random.split(key, 6)
    box = pictures.boxes[number].reshape(2, 2)
    extent = jnp.asarray(pictures.places)[number, 2:0:-1].astype(jnp.float32)  # width, height
    side = _sides(keys[:3], box[1] - box[0], extent, config)
    centre = _centre(keys[3], box, extent, side)
    angle = config.rotation * jax.random.uniform(keys[4], minval=-1, maxval=1)
    flip = jnp.where(jax.random.bernoulli(keys[5]), 1.0, -1.0)
    grid = (jnp.arange(config.size) + 0.5) / config.size - 0.5
    across, down = (grid * flip * side[0]).reshape(1, -1), (grid * side[1]).reshape(-1, 1)
    x = centre[0] + across * jnp.cos(angle) - down * jnp.sin(angle)
    y = centre[1] + across * jnp.sin(angle) + down * jnp.cos(angle)
    return x, y


def _sides(
    keys: Key[Array, "3"], size: Float[Array, "2"], extent: Float[Array, "2"], config: ViewConfig
) -> Float[Array, "2"]:
    zooms = jax.random.bernoulli(keys[0], config.zoom_share)
    low, high = jnp.log(jnp.array([config.zoom, config.whole])).T
    low, high = jnp.where(zooms, low[0], low[1]), jnp.where(zooms, high[0], high[1])
    longest = jnp.where(zooms, jnp.maximum(jnp.max(size), 24.0), jnp.max(extent))
    side = longest * jnp.exp(jax.random.uniform(keys[1], minval=low, maxval=high))
    stretch = config.aspect * jax.random.uniform(keys[2], minval=-1, maxval=1)
    return side * jnp.exp(jnp.stack([stretch, -stretch]) / 2)


def _centre(
    key: Key[Array, ""],
    box: Float[Array, "2 2"],
    extent: Float[Array, "2"],
    side: Float[Array, "2"],
) -> Float[Array, "2"]:
    """Return a centre for which the view contains the object's box or lies within it.

    Most centres keep the view within the picture.
    """
    place, inside = jax.random.split(key)
    room = jnp.abs(side - (box[1] - box[0])) / 2
    centre = (box[0] + box[1]) / 2 + room * jax.random.uniform(place, (2,), minval=-1, maxval=1)
    low, high = jnp.minimum(side, extent) / 2, extent - jnp.minimum(side, extent) / 2
    within = jnp.clip(centre, low, high)
    return jnp.where(jax.random.bernoulli(inside, 0.8), within, centre)


def _look(
    pictures: Pictures, place: Array, x: Float[Array, "s s"], y: Float[Array, "s s"]
) -> tuple[Float[Array, "s s 3"], Float[Array, "s s"], Float[Array, "s s"]]:
    begin, height, width, value = (place[i] for i in range(4))
    x, y = x - 0.5, y - 0.5
    left, top = jnp.floor(x), jnp.floor(y)
    image, truth, known = jnp.zeros((*x.shape, 3)), jnp.zeros(x.shape), jnp.zeros(x.shape)
    for down in (0, 1):
        for right in (0, 1):
            weight = (1 - jnp.abs(x - left - right)) * (1 - jnp.abs(y - top - down))
            column = jnp.clip(left + right, 0, width - 1).astype(jnp.int32)
            row = jnp.clip(top + down, 0, height - 1).astype(jnp.int32)
            index = begin + row * width + column
            image += weight[..., None] * pictures.pixels[index].astype(jnp.float32) / 255
            truth += weight * (pictures.masks[index] == value)
            known += weight * (pictures.masks[index] != UNKNOWN)
    seen = (x > -1) & (y > -1) & (x < width) & (y < height)
    return jnp.where(seen[..., None], image, BEYOND), truth * seen, known * seen


def _recolour(
    image: Float[Array, "s s 3"], key: Key[Array, ""], strength: float
) -> Float[Array, "s s 3"]:
    keys = jax.random.split(key, 4)
    brightness, contrast, saturation, gamma = (
        jnp.exp(strength * jax.random.uniform(k, minval=-1, maxval=1)) for k in keys
    )
    grey = jnp.mean(image, -1, keepdims=True)
    image = grey + (image - grey) * saturation
    mean = jnp.mean(image)
    image = jnp.clip((mean + (image - mean) * contrast) * brightness, 0, 1)
    return jnp.power(image + 1e-4, gamma)
