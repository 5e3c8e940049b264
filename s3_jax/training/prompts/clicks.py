"""Simulated clicks, boxes and previous masks, drawn on the device."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from s3_jax.models.prompt_maps import BACKGROUND, MASK_STRIDE, NONE, OBJECT, Prompts
from s3_jax.ops.resize import resize_area, resize_bilinear

# Clicks are placed on masks at this stride, twice that of the network's logits.
STRIDE = 4
# Largest inner distance, in cells; deeper cells count as this deep.
DEEPEST = 24


@dataclasses.dataclass(frozen=True)
class ClickConfig:
    """Frozen settings of simulated prompts.

    first: shares of views that begin with one click, a box, a previous mask and a click, and
      several random clicks.
    several: maximum number of clicks that a view begins with.
    stages: number of times the network sees a view, each time with its own last mask.
    again: share of later stages that add no click.
    """

    first: tuple[float, float, float, float] = (0.45, 0.25, 0.12, 0.18)
    several: int = 8
    stages: int = 3
    again: float = 0.25

    @property
    def points(self) -> int:
        """Number of point slots."""
        return self.several + self.stages - 1


def inner_distance(mask: Bool[Array, "b h w"]) -> Int[Array, "b h w"]:
    """Return each cell's distance to the nearest cell outside the mask, at most `DEEPEST`.

    Distances count erosion steps, alternating between eight and four neighbours. Cells beyond the
    edges count as outside.
    """

    def erode(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        """Erode what is left of the masks once, and count the step."""
        left, depth = carry
        depth = depth + left
        across = _all_of_three(left, 2)
        corners, plus = _all_of_three(across, 1), across & _all_of_three(left, 1)
        return jnp.where(i % 2 == 0, plus, corners), depth

    return lax.fori_loop(0, DEEPEST, erode, (mask, jnp.zeros(mask.shape, jnp.int32)))[1]


def _all_of_three(mask: Bool[Array, "b h w"], axis: int) -> Bool[Array, "b h w"]:
    pad = [(0, 0)] * 3
    pad[axis] = (1, 1)
    padded, n = jnp.pad(mask, pad), mask.shape[axis]
    before, after = (lax.slice_in_dim(padded, i, i + n, axis=axis) for i in (0, 2))
    return before & mask & after


def add_click(
    prompts: Prompts,
    slot: int | Int[Array, ""],
    wanted: Bool[Array, "b"],
    truth: Float[Array, "b h w"],
    guess: Float[Array, "b h w"],
    known: Float[Array, "b h w"],
    depth: Float[Array, "b"],
    key: Key[Array, ""],
) -> Prompts:
    """Return the prompts with one more point, placed on a wrong part of the guess.

    slot: the point's slot. wanted: views that get a point; a view without an error gets none.
    truth, guess, known: at `STRIDE`, in [0, 1].
    depth: minimum depth of the point within the error, as a share of the deepest one.
    """
    on_object, sure = truth > 0.5, known > 0.9
    missed, wrong = on_object & (guess <= 0.5) & sure, ~on_object & (guess > 0.5) & sure
    distance = jnp.maximum(inner_distance(missed), inner_distance(wrong))
    deepest = jnp.max(distance, (1, 2))
    enough = distance >= jnp.maximum(depth * deepest, 1)[:, None, None]
    label = jnp.where(on_object, OBJECT, BACKGROUND)
    return _add(prompts, slot, wanted & (deepest > 0), enough, label, key)


def _add(
    prompts: Prompts,
    slot: int | Int[Array, ""],
    wanted: Bool[Array, "b"],
    places: Bool[Array, "b h w"],
    label: Int[Array, "b h w"],
    key: Key[Array, ""],
) -> Prompts:
    """Return the prompts with a point drawn uniformly from `places`."""
    choice, within = jax.random.split(key)
    b, _, w = places.shape
    chance = jnp.where(places, jax.random.uniform(choice, places.shape), -1.0).reshape(b, -1)
    index = jnp.argmax(chance, 1)
    position = jnp.stack([index % w, index // w], -1) + jax.random.uniform(within, (b, 2))
    found = jnp.take_along_axis(label.reshape(b, -1), index[:, None], 1)[:, 0]
    wanted = wanted & (jnp.max(chance, 1) >= 0)
    return prompts._replace(
        points=prompts.points.at[:, slot].set(position * STRIDE),
        labels=prompts.labels.at[:, slot].set(jnp.where(wanted, found, NONE)),
    )


def first_prompts(
    truth: Float[Array, "b h w"],
    known: Float[Array, "b h w"],
    key: Key[Array, ""],
    config: ClickConfig,
) -> Prompts:
    """Return the prompts that views begin with. truth, known: at `MASK_STRIDE`."""
    kinds, box_key, mask_key, click_key, random_key = jax.random.split(key, 5)
    b = truth.shape[0]
    kind = jnp.searchsorted(jnp.cumsum(jnp.array(config.first)), jax.random.uniform(kinds, (b,)))
    small, sure = (clickable(x) for x in (truth, known))
    given = kind == 2
    previous = jnp.where(given[:, None, None], spoil(truth, mask_key), 0.0)
    prompts = Prompts(
        points=jnp.zeros((b, config.points, 2)),
        labels=jnp.full((b, config.points), NONE),
        box=_box(truth > 0.5, box_key),
        boxed=(kind == 1).astype(jnp.float32),
        previous=previous,
        given=given.astype(jnp.float32),
    )
    depth_key, again_key, click_key = jax.random.split(click_key, 3)
    clicked = (kind == 0) | (given & jax.random.bernoulli(again_key, 0.5, (b,)))
    correct = given & ~clicked
    centred = jax.random.bernoulli(again_key, 0.5, (b,))
    depth = jnp.where(centred, 0.95, jax.random.uniform(depth_key, (b,)))
    guess = jnp.where(correct[:, None, None], clickable(previous), 0.0)
    prompts = add_click(prompts, 0, clicked | correct, small, guess, sure, depth, click_key)
    return _several(prompts, small, sure, kind == 3, random_key, config)


def _several(
    prompts: Prompts,
    truth: Float[Array, "b h w"],
    known: Float[Array, "b h w"],
    wanted: Bool[Array, "b"],
    key: Key[Array, ""],
    config: ClickConfig,
) -> Prompts:
    """Add clicks at random places of some views, the first one on the object."""
    number_key, key = jax.random.split(key)
    b = truth.shape[0]
    number = jax.random.randint(number_key, (b,), 2, config.several + 1)
    number = jnp.where(wanted, number, 0)
    label = jnp.where(truth > 0.5, OBJECT, BACKGROUND)

    def add(i: Array, prompts: Prompts) -> Prompts:
        """Add click number i to the views that get one."""
        side, place = jax.random.split(jax.random.fold_in(key, i))
        positive = jax.random.bernoulli(side, 0.55, (b,)) | (i == 0)
        places = ((label == OBJECT) == positive[:, None, None]) & (known > 0.9)
        added = _add(prompts, i, i < number, places, label, place)
        first = ~wanted & (i == 0)  # these views keep the point that they have
        return prompts._replace(
            points=jnp.where(first[:, None, None], prompts.points, added.points),
            labels=jnp.where(first[:, None], prompts.labels, added.labels),
        )

    return lax.fori_loop(0, config.several, add, prompts)


def clickable(x: Float[Array, "b h w"]) -> Float[Array, "b h2 w2"]:
    """Resize maps from `MASK_STRIDE` to the stride of clicks."""
    factor = STRIDE // MASK_STRIDE
    return resize_area(x[..., None], (x.shape[1] // factor, x.shape[2] // factor))[..., 0]


def _box(mask: Bool[Array, "b h w"], key: Key[Array, ""]) -> Float[Array, "b 4"]:
    """Return boxes around masks with jitter: sides move by up to a tenth, usually less."""
    rows, columns = jnp.any(mask, 2), jnp.any(mask, 1)
    ends = [
        jnp.argmax(columns, 1),
        jnp.argmax(rows, 1),
        mask.shape[2] - jnp.argmax(columns[:, ::-1], 1),
        mask.shape[1] - jnp.argmax(rows[:, ::-1], 1),
    ]
    box = MASK_STRIDE * jnp.stack(ends, -1).astype(jnp.float32)
    size = jnp.tile(box[:, 2:] - box[:, :2], (1, 2))
    amount, jitter = jax.random.split(key)
    amount = 0.1 * jnp.square(jax.random.uniform(amount, (mask.shape[0], 1)))
    return box + amount * size * jax.random.uniform(jitter, box.shape, minval=-1, maxval=1)


def spoil(truth: Float[Array, "b h w"], key: Key[Array, ""]) -> Float[Array, "b h w"]:
    """Return probabilities like those of a coarse or wrong mask of the object."""
    keys = jax.random.split(key, 3)
    b, h, w = truth.shape
    amounts = jax.random.uniform(keys[0], (b, 1, 1))
    noise = sum(
        resize_bilinear(jax.random.uniform(k, (b, n, n, 1), minval=-1, maxval=1), (h, w))[..., 0]
        for k, n in ((keys[1], 4), (keys[2], 10))
    )
    coarse = resize_area(truth[..., None], (h // 8, w // 8))
    coarse = resize_bilinear(coarse, (h, w))[..., 0]
    return jax.nn.sigmoid(10 * (coarse - 0.5 + 0.5 * amounts * noise))
