"""Points at which losses are evaluated: uniform ones, and those where a prediction is uncertain.

After PointRend (Kirillov et al. 2020): more candidates are drawn than needed, and the ones whose
two best classes are closest are kept. Points are (x, y) in [0, 1], measured from the frame's left
and top edge; the first pixel's centre is half a pixel from both.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Integer, Key

from s3_jax.ops.top_k import largest_places
from s3_jax.training.step_config import LossConfig

# Logit of classes that an item does not have: finite, but with no weight in a softmax.
ABSENT = -1e30


class Candidates(NamedTuple):
    """Candidate points: `unsure` are filtered by uncertainty, `uniform` are used as they are."""

    unsure: Float[Array, "n 2"]
    uniform: Float[Array, "m 2"]


class _Corners(NamedTuple):
    """The four pixels around each point: index in the flattened map, and bilinear weight."""

    place: Int[Array, "4 p"]
    weight: Float[Array, "4 p"]


def choose_points(
    config: LossConfig,
    key: Key[Array, ""],
    logits: Float[Array, "c h w"],
    num_objects: Integer[Array, ""],
) -> Float[Array, "p 2"]:
    """Return `config.num_points` points, most of them where `logits` are least certain."""
    chosen = num_unsure(config)
    return select_points(logits, draw_candidates(config, key), num_objects, chosen)


def num_unsure(config: LossConfig) -> int:
    """Return the number of points that are chosen by uncertainty."""
    return int(config.uncertain_part * config.num_points)


def draw_candidates(config: LossConfig, key: Key[Array, ""]) -> Candidates:
    """Draw uniform candidates for one frame and one pair of losses."""
    unsure, uniform = jax.random.split(key)
    candidates = int(config.num_points * config.oversampling)
    rest = config.num_points - num_unsure(config)
    return Candidates(
        jax.random.uniform(unsure, (candidates, 2)), jax.random.uniform(uniform, (rest, 2))
    )


def select_points(
    logits: Float[Array, "c h w"],
    candidates: Candidates,
    num_objects: Integer[Array, ""],
    count: int,
) -> Float[Array, "p 2"]:
    """Return the `count` most uncertain candidates, then the uniform points; no gradient flows."""
    logits = lax.stop_gradient(logits)
    scores = uncertainty(sample_map(logits, candidates.unsure), num_objects)
    best = largest_places(scores, count)
    return jnp.concatenate([candidates.unsure[best], candidates.uniform])


def uncertainty(logits: Float[Array, "c p"], num_objects: Integer[Array, ""]) -> Float[Array, "p"]:
    """Return the uncertainty at each point: the second-best logit minus the best, at most 0.

    With a single object it is minus the absolute value of the object's logit. Classes are the
    background and the item's objects.
    """
    classes = jnp.arange(logits.shape[0])[:, None]
    known = jnp.where(classes <= num_objects, logits, ABSENT)
    best = jnp.argmax(known, axis=0)[None]
    second = jnp.max(jnp.where(classes == best, ABSENT, known), axis=0)
    return jnp.where(num_objects == 1, -jnp.abs(logits[1]), second - jnp.max(known, axis=0))


def sample_map(values: Float[Array, "c h w"], points: Float[Array, "p 2"]) -> Float[Array, "c p"]:
    """Return bilinear samples of a map; outside its edges the map is zero."""
    c, h, w = values.shape
    corners = _corners(points, h, w)
    flat = values.reshape(c, h * w)
    taken = [flat[:, index] * weight[None] for index, weight in zip(*corners, strict=True)]
    return sum(taken[1:], taken[0])


def sample_labels(
    labels: Integer[Array, "h w"], points: Float[Array, "p 2"], classes: int
) -> Float[Array, "c p"]:
    """Return bilinear samples of the labels' one-hot maps, without building them; zero outside."""
    corners = _corners(points, *labels.shape)
    classes_column = jnp.arange(classes, dtype=labels.dtype)[:, None]
    is_class = lambda index: labels.reshape(-1)[index][None] == classes_column  # noqa: E731
    taken = [is_class(index) * weight[None] for index, weight in zip(*corners, strict=True)]
    return sum(taken[1:], taken[0])


def _corners(points: Float[Array, "p 2"], height: int, width: int) -> _Corners:
    place = points * jnp.array([[width, height]], points.dtype) - 0.5
    origin = jnp.floor(place)
    fraction = place - origin
    low = origin.astype(jnp.int32)
    index, weight = [], []
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        x, y = low[:, 0] + dx, low[:, 1] + dy
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        across = fraction[:, 0] if dx else 1 - fraction[:, 0]
        down = fraction[:, 1] if dy else 1 - fraction[:, 1]
        index.append(jnp.clip(y, 0, height - 1) * width + jnp.clip(x, 0, width - 1))
        weight.append(jnp.where(inside, across * down, 0.0))
    return _Corners(jnp.stack(index), jnp.stack(weight))
