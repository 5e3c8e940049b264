"""Soft aggregation of object masks, and the masks of the other objects.

Objects of different buckets (those that first appeared in different frames) ignore each other
while memory is read; `same_bucket` then is 1 where two objects share a bucket.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from s3_jax.ops.precision import widen

EPSILON = 1e-7  # probabilities are clamped to [EPSILON, 1 - EPSILON] before their logit


def logit(prob: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return log(p / (1 - p)) of clamped probabilities, float32."""
    prob = jnp.clip(widen(prob), EPSILON, 1 - EPSILON)
    return jnp.log(prob / (1 - prob))


def aggregate(prob: Float[Array, "b k h w"]) -> Float[Array, "b k+1 h w"]:
    """Return logits of background (no object present) and objects, float32.

    See docs/network.md, section 0.
    """
    prob = widen(prob)
    background = jnp.prod(1 - prob, axis=1, keepdims=True)
    return logit(jnp.concatenate([background, prob], axis=1))


def softmax_over_objects(logits: Float[Array, "b n h w"]) -> Float[Array, "b n h w"]:
    """Apply a softmax over axis 1, background and objects.

    The maximum and the sum go slice by slice, because XLA's reductions over this axis take up to
    ten times as long on CPUs.
    """

    def slices(x: Float[Array, "b n h w"]) -> list[Float[Array, "b 1 h w"]]:
        return [x[:, i : i + 1] for i in range(x.shape[1])]

    largest = lax.stop_gradient(functools.reduce(jnp.maximum, slices(logits)))
    exponential = jnp.exp(logits - largest)
    return exponential / functools.reduce(jnp.add, slices(exponential))


def others(
    masks: Float[Array, "b k h w"], same_bucket: Float[Array, "k k"] | None = None
) -> Float[Array, "b k h w"]:
    """Return, per object, the sum of the other masks in its bucket, clipped to [0, 1]."""
    if same_bucket is None:
        total = jnp.sum(masks, axis=1, keepdims=True)
    else:
        total = jnp.einsum(
            "kj,bjhw->bkhw", same_bucket.astype(masks.dtype), masks, precision="highest"
        )
    return jnp.clip(total - masks, 0, 1)


def foreground(
    prob: Float[Array, "b k h w"], same_bucket: Float[Array, "k k"] | None = None
) -> Array:
    """Return True where an object's aggregated logit is the highest, background included.

    Returns:
      bool (b, k, h, w). Ties, including those caused by the clamp, count as foreground
      (docs/network.md, section 6.1).
    """
    prob = widen(prob)
    objects = logit(prob)
    if same_bucket is None:
        background = logit(jnp.prod(1 - prob, axis=1, keepdims=True))
        best = jnp.maximum(background, jnp.max(objects, axis=1, keepdims=True))
        return objects >= best
    together = same_bucket[None, :, :, None, None] > 0
    background = logit(jnp.prod(jnp.where(together, 1 - prob[:, None], 1.0), axis=2))
    strongest = jnp.max(jnp.where(together, objects[:, None], -jnp.inf), axis=2)
    return objects >= jnp.maximum(background, strongest)
