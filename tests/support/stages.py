"""Run the network on a frame in one compiled program that returns every stage."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from s3_jax.config import ModelConfig
from s3_jax.memory.read import read_frames
from s3_jax.models.object_transformer import blocked_pixels
from s3_jax.models.s3 import S3, ImageFeatures
from s3_jax.ops.similarity import masked_softmax, similarity
from s3_jax.ops.top_k import top_k_mask

QUERY = 2  # frame 2 is segmented; frames 0 and 1 are the memory
Stages = dict[str, Any]


def run(config: ModelConfig, variables: Mapping[str, Any], inputs: Mapping[str, Any]) -> Stages:
    """Return all stages as NumPy arrays, channels-last, under the names in `_line`.

    Args:
      inputs: as recorded: frames_u8 (b 3 H W 3), masks (b 3 k H W), sensory (b k c h w) and
        selector (b k 1 1), which is 0 for padding objects.
    """
    stages = jax.jit(lambda *arrays: _line(S3(config), *arrays))(
        {name: variables[name] for name in ("params", "batch_stats")},
        inputs["frames_u8"].astype(np.float32) / 255,
        inputs["masks"],
        np.moveaxis(inputs["sensory"], 2, -1),
        inputs["selector"][..., 0, 0],
    )
    return jax.tree.map(np.asarray, stages)


def _line(
    net: S3, variables: Any, frames: jax.Array, masks: jax.Array, sensory: jax.Array,
    selector: jax.Array,
) -> Stages:  # fmt: skip
    def watched(method: str, part: str, *args: Any) -> tuple[Any, dict[str, Any]]:
        """Return the method's result, and what the modules of one part of the network returned."""
        result, state = net.apply(variables, *args, method=method, mutable=["intermediates"],
                                  capture_intermediates=_is_recorded)  # fmt: skip
        return result, _by_path(state["intermediates"][part])

    def plain(method: str, *args: Any) -> Any:
        return net.apply(variables, *args, method=method)

    b = frames.shape[0]
    features, seen_by_encoder = _unfold(watched("encode_image", "image_encoder", _fold(frames)), b)
    query: ImageFeatures = jax.tree.map(lambda x: x[:, QUERY], features)

    remembered = [_fold(x[:, :QUERY]) for x in (frames, features.pix_feat, masks)]
    encoded, seen_by_summarizer = _unfold(
        watched("encode_mask", "object_summarizer", *remembered), b
    )
    sensory = plain("update_sensory_deep", sensory, encoded.value[:, 0])

    memory = _read_memory(features, jnp.moveaxis(encoded.value, 1, 2))
    fused = plain("fuse_pixels", query.pix_feat, memory["readout"], sensory, masks[:, 1])
    summed = encoded.summaries[:, 0] + encoded.summaries[:, 1]
    object_value = summed[..., :-1] / (summed[..., -1:] + 1e-4)

    # Two copies in one batch: all objects are valid in one, the selector's objects in the other.
    twice = (query, fused, object_value, sensory)
    query, pixel, object_value, state = jax.tree.map(lambda x: jnp.concatenate([x, x]), twice)
    valid = jnp.concatenate([jnp.ones_like(selector), selector])
    transformed, seen = watched(
        "transform_objects", "object_transformer", pixel, object_value, valid
    )
    decoded = plain("decode_mask", query, transformed.pixel, state)
    segmented = {
        "transformed": transformed,
        "seen": seen,
        # The attention mask for one more block; it is recorded although no such block exists.
        "blocked_last": blocked_pixels(transformed.logits[:, :, -1], valid),
        "sensory": plain("update_sensory", state, decoded.sensory_input),
        "finished": plain("finish", decoded.logits, valid),
        "auxiliary": plain("predict_auxiliary", query.pix_feat, state, transformed.logits, valid),
    }
    half = lambda x: x.shape[0] // 2  # noqa: E731
    return {
        "features": features,
        "seen_by_encoder": seen_by_encoder,
        "encoded": encoded,
        "summary_logits": seen_by_summarizer[""][1],
        "sensory": sensory,
        "memory": memory,
        "fused": fused,
        "all": jax.tree.map(lambda x: x[: half(x)], segmented),
        "selected": jax.tree.map(lambda x: x[half(x) :], segmented),
    }


def _fold(x: jax.Array) -> jax.Array:
    """(b t ...) -> (b*t ...)."""
    return x.reshape(-1, *x.shape[2:])


def _unfold(tree: Any, b: int) -> Any:
    """(b*t ...) -> (b t ...), without the function among an encoder's features."""
    split = lambda x: None if callable(x) else x.reshape(b, -1, *x.shape[1:])  # noqa: E731
    return jax.tree.map(split, tree)


def _read_memory(features: ImageFeatures, value: jax.Array) -> dict[str, jax.Array]:
    """Return similarities, affinities (b, query pixels, tokens) and the readout of all tokens."""
    b, _, h, w, c = features.key.key.shape
    key = features.key.key[:, :QUERY].reshape(b, -1, c)
    shrinkage = features.key.shrinkage[:, :QUERY].reshape(b, -1)
    query = features.key.key[:, QUERY].reshape(b, -1, c)
    selection = features.key.selection[:, QUERY].reshape(b, -1, c)
    scores = similarity(key, shrinkage, query, selection)
    readout = read_frames(
        key.reshape(b, QUERY, h * w, c),
        shrinkage.reshape(b, QUERY, h * w),
        value.reshape(*value.shape[:3], h * w, value.shape[-1]),
        jnp.ones((b, QUERY), bool),
        query,
        selection,
    )
    return {
        "similarity": scores,
        "similarity_no_selection": similarity(key, shrinkage, query, None),
        "similarity_no_shrinkage": similarity(key, None, query, selection),
        "affinity": masked_softmax(scores, jnp.ones_like(scores, bool)),
        "affinity_top10": masked_softmax(scores, jax.vmap(lambda x: top_k_mask(x, 10))(scores)),
        "readout": readout.reshape(*readout.shape[:2], h, w, -1),
    }


def _is_recorded(module: nn.Module, method: str) -> bool:
    return method in ("__call__", "embed", "_embed")


def _by_path(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return module path -> what the module returned ("" for the part itself).

    Names of methods other than __call__, and of `sow`n values, are appended to the module's path.
    """
    found: dict[str, Any] = {}
    for name, value in tree.items():
        path = prefix if name == "__call__" else f"{prefix}/{name}".removeprefix("/")
        if isinstance(value, Mapping):
            found |= _by_path(value, path)
        else:
            found[path] = value if len(value) > 1 else value[0]
    return found
