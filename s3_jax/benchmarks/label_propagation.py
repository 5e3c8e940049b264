"""Tracking by nearest neighbours in the feature space of a network trained only on ImageNet.

For every token of a frame, the most similar tokens of the first and the last few frames are found,
and the token's label is the weighted mean of theirs (as in Jabri et al., "Space-Time Correspondence
as a Contrastive Random Walk", NeurIPS 2020, but without a distance limit). Nothing is trained.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from s3_jax.benchmarks.baselines import Baseline, Ids, Image, hard_labels, object_ids, one_hot
from s3_jax.models.efficientnet import EfficientNetLite0
from s3_jax.ops.resize import resize_area, resize_masks
from s3_jax.propagation.geometry import FrameGeometry, frame_geometry, pad, prepare_image, restore

NEIGHBOURS = 7
TEMPERATURE = 0.07
LAST_FRAMES = 4
STRIDE, MULTIPLE = 16, 32


class Context(NamedTuple):
    """Frames from which labels are taken: the first frame, then a ring buffer of the last ones."""

    features: Float[Array, "t n c"]
    labels: Float[Array, "t n k"]
    valid: Bool[Array, " t"]


def nearest_neighbours(variables: Any) -> Baseline:
    """Return the baseline with the features of an EfficientNet-Lite0.

    Args:
      variables: {"params", "batch_stats"} of `EfficientNetLite0`.
    """
    return functools.partial(_follow, variables)


def _follow(variables: Any, images: Iterable[Image], first: Ids) -> Iterator[Ids]:
    objects = object_ids(first)
    geometry = frame_geometry(first.shape, MULTIPLE)
    masks = one_hot(first, objects)
    context: Context | None = None
    for index, image in enumerate(images):
        features = _features(geometry, variables, image)
        if context is None:
            context = _first_context(features, _small_labels(geometry, masks))
            yield first
            continue
        labels, soft = _propagate(geometry, context, features)
        slot = 1 + (index - 1) % LAST_FRAMES
        context = _remember(context, features, labels, slot)
        yield hard_labels(np.asarray(soft), objects)


@functools.partial(jax.jit, static_argnums=0)
def _features(
    geometry: FrameGeometry, variables: Any, image: UInt8[Array, "h w 3"]
) -> Float[Array, "n c"]:
    """Return the tokens at stride 16, normalized so that their dot products are cosines."""
    maps: Any = EfficientNetLite0().apply(variables, prepare_image(image, geometry))
    tokens = maps.f16.reshape(-1, maps.f16.shape[-1])
    return tokens / jnp.maximum(jnp.linalg.norm(tokens, axis=-1, keepdims=True), 1e-6)


@functools.partial(jax.jit, static_argnums=0)
def _small_labels(geometry: FrameGeometry, masks: Float[Array, "k h w"]) -> Float[Array, "n k"]:
    """Return the fraction of every token's square that each object covers."""
    padded = pad(masks, geometry, axis=1)
    size = (padded.shape[1] // STRIDE, padded.shape[2] // STRIDE)
    small = resize_area(jnp.moveaxis(padded, 0, -1)[None], size)[0]
    return small.reshape(-1, masks.shape[0])


def _first_context(features: Float[Array, "n c"], labels: Float[Array, "n k"]) -> Context:
    frames = 1 + LAST_FRAMES
    return Context(
        jnp.zeros((frames, *features.shape)).at[0].set(features),
        jnp.zeros((frames, *labels.shape)).at[0].set(labels),
        jnp.arange(frames) == 0,
    )


@functools.partial(jax.jit, donate_argnums=0)
def _remember(
    context: Context, features: Float[Array, "n c"], labels: Float[Array, "n k"], slot: Array
) -> Context:
    return Context(
        context.features.at[slot].set(features),
        context.labels.at[slot].set(labels),
        context.valid.at[slot].set(True),
    )


@functools.partial(jax.jit, static_argnums=0)
def _propagate(
    geometry: FrameGeometry, context: Context, features: Float[Array, "n c"]
) -> tuple[Float[Array, "n k"], Float[Array, "k h w"]]:
    """Return the labels of a frame's tokens, and the same labels at the frame's size."""
    frames, tokens, channels = context.features.shape
    similarity = features @ context.features.reshape(-1, channels).T
    valid = jnp.repeat(context.valid, tokens)
    best, places = jax.lax.top_k(jnp.where(valid[None], similarity, -jnp.inf), NEIGHBOURS)
    weights = jax.nn.softmax(best / TEMPERATURE, axis=-1)
    known = context.labels.reshape(frames * tokens, -1)[places]
    labels = jnp.einsum("ni,nik->nk", weights, known)
    height, width = (side // STRIDE for side in geometry.padded)
    small = labels.T.reshape(-1, height, width)
    return labels, _at_frame_size(small, geometry)


def _at_frame_size(small: Float[Array, "k h w"], geometry: FrameGeometry) -> Array:
    large = resize_masks(small[None], geometry.padded, "bilinear")[0]
    return restore(large, geometry)
