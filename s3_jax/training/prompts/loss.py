"""Loss of the prompt head over several stages, each with the last mask and up to one more click."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key

from s3_jax.models.efficientnet import DetailedMaps
from s3_jax.models.prompt_head import PromptLogits
from s3_jax.models.prompt_maps import MASK_STRIDE, Prompts
from s3_jax.ops.backend import backend
from s3_jax.ops.resize import resize_area, resize_bilinear
from s3_jax.training.losses import dice
from s3_jax.training.prompts.clicks import ClickConfig, add_click, clickable, first_prompts
from s3_jax.training.prompts.views import Views

Head = Callable[[DetailedMaps, Prompts], PromptLogits]


@dataclasses.dataclass(frozen=True)
class PromptLossConfig:
    """Frozen weights of the losses, and the exponent that emphasizes wrong pixels."""

    entropy: float = 1.0
    dice: float = 1.0
    coarse: float = 0.4
    focus: float = 1.0


def prompt_losses(
    head: Head,
    maps: DetailedMaps,
    views: Views,
    key: Key[Array, ""],
    clicks: ClickConfig,
    config: PromptLossConfig,
) -> dict[str, Float[Array, ""]]:
    """Return losses by name, averaged over views and stages; "total" is minimized."""
    half = (views.truth.shape[1] // MASK_STRIDE, views.truth.shape[2] // MASK_STRIDE)
    truth, known = (resize_area(x[..., None], half)[..., 0] for x in (views.truth, views.known))
    first_key, key = jax.random.split(key)
    prompts = first_prompts(truth, known, first_key, clicks)

    def stage(prompts: Prompts, inputs: tuple[Array, Array]) -> tuple[Prompts, dict[str, Array]]:
        """Return the next stage's prompts, and the losses of this one."""
        number, key = inputs
        logits = head(maps, prompts)
        losses = stage_losses(logits, truth, known, config)
        guess = lax.stop_gradient(jax.nn.sigmoid(logits.fine))
        return _next(prompts, number, guess, truth, known, key, clicks), losses

    numbers = clicks.several + jnp.arange(clicks.stages)
    keys = jax.random.split(key, clicks.stages)
    # XLA's CPU compiler generates slow code for loop bodies.
    unroll = clicks.stages if backend() == "cpu" else 1
    _, losses = lax.scan(stage, prompts, (numbers, keys), unroll=unroll)
    return jax.tree.map(jnp.mean, losses)


def _next(
    prompts: Prompts,
    slot: Array,
    guess: Float[Array, "b h w"],
    truth: Float[Array, "b h w"],
    known: Float[Array, "b h w"],
    key: Key[Array, ""],
    config: ClickConfig,
) -> Prompts:
    """Return the next stage's prompts: the guess, sometimes coarsened, and usually a new click."""
    coarse_key, again_key, depth_key, click_key = jax.random.split(key, 4)
    b, h, w = guess.shape
    coarse = resize_bilinear(resize_area(guess[..., None], (h // 4, w // 4)), (h, w))[..., 0]
    coarsened = jax.random.bernoulli(coarse_key, 0.3, (b, 1, 1))
    prompts = prompts._replace(
        previous=jnp.where(coarsened, coarse, guess), given=jnp.ones_like(prompts.given)
    )
    wanted = ~jax.random.bernoulli(again_key, config.again, (b,))
    depth = jnp.minimum(jax.random.uniform(depth_key, (b,), minval=0.3, maxval=1.3), 1.0)
    truth, guess, known = (clickable(x) for x in (truth, guess, known))
    return add_click(prompts, slot, wanted, truth, guess, known, depth, click_key)


def stage_losses(
    logits: PromptLogits,
    truth: Float[Array, "b h w"],
    known: Float[Array, "b h w"],
    config: PromptLossConfig,
) -> dict[str, Float[Array, ""]]:
    """Return the losses of one stage by name. truth, known: at `MASK_STRIDE`."""
    weights = {"fine": 1.0, "f8": config.coarse, "f16": config.coarse}
    losses = {}
    for name, weight in weights.items():
        found = getattr(logits, name)
        target, sure = (resize_area(x[..., None], found.shape[1:])[..., 0] for x in (truth, known))
        losses[f"{name}_ce"] = weight * config.entropy * entropy(found, target, sure, config.focus)
    flat = logits.fine.reshape(truth.shape[0], -1)
    seen = (known > 0.5).reshape(flat.shape)
    on_object = jnp.where(seen, truth.reshape(flat.shape), 0.0)
    both = jnp.stack([1 - on_object, on_object], 1)
    guess = jnp.stack([jnp.zeros_like(flat), jnp.where(seen, flat, -20.0)], 1)
    losses["dice"] = config.dice * jnp.mean(jax.vmap(dice, (0, 0, None))(guess, both, jnp.array(1)))
    return losses | {"total": sum(losses.values(), jnp.zeros(()))}


def entropy(
    logits: Float[Array, "b h w"],
    truth: Float[Array, "b h w"],
    known: Float[Array, "b h w"],
    focus: float,
) -> Float[Array, ""]:
    """Return binary cross entropy over the pixels whose truth is known.

    A view's pixels are weighted by their error to the power of `focus`; the weights are scaled to
    sum to about the number of known pixels.
    """
    loss = jax.nn.softplus(logits) - truth * logits
    wrong = jnp.power(jnp.abs(truth - lax.stop_gradient(jax.nn.sigmoid(logits))) + 1e-3, focus)
    weight = wrong * known
    scale = jnp.sum(known, (1, 2)) / (jnp.sum(weight, (1, 2)) + 0.02 * known[0].size)
    return jnp.mean(loss * weight * scale[:, None, None])
