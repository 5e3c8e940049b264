"""Names of the recorded arrays for our stages, with one table per part of the network.

Our arrays are channels-last. Recorded maps are (b c h w), per-object maps (b k c h w).
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from s3_jax.config import ModelConfig
from s3_jax.models.encoders.spatial_semantic import NUM_BLOCKS
from s3_jax.models.masks import aggregate
from s3_jax.models.positional import sinusoidal_encoding
from s3_jax.models.s3 import ImageFeatures
from tests.support.goldens import object_pixels, pixels
from tests.support.stages import QUERY, Stages

Arrays = dict[str, Any]  # of NumPy arrays


def by_recorded_name(config: ModelConfig, params: Mapping[str, Any], stages: Stages) -> Arrays:
    """Return all stages recorded for this kind of network, by recorded name and in that layout."""
    features = stages["features"]
    seen = jax.tree.map(lambda x: x[:, QUERY], stages["seen_by_encoder"])
    found = _image(features) | _encoded_masks(stages) | _memory(stages["memory"])
    if config.encoder != "resnet":
        found |= _vit(config, seen)
    if config.encoder == "spatial_semantic":
        found |= _spatial_semantic(config, seen)
    found |= _transformer(config, params["object_transformer"], stages)
    for suffix, name in (("", "all"), ("_sel", "selected")):
        found |= _outputs(suffix, stages[name])
    return found | _positions(config, *features.f16.shape[2:4])


def _image(features: ImageFeatures) -> Arrays:
    key, shrinkage, selection = features.key
    return {
        "f16": pixels(features.f16[:, QUERY]),
        "f8": pixels(features.f8[:, QUERY]),
        "f4": pixels(features.f4[:, QUERY]),
        "pix_feat": pixels(features.pix_feat[:, QUERY]),
        "key": pixels(key[:, QUERY]),
        "shrinkage": shrinkage[:, QUERY, None],
        "selection": pixels(selection[:, QUERY]),
        "mem.key": pixels(key[:, :QUERY]),
        "mem.shrinkage": shrinkage[:, None, :QUERY],
        "mem.pix_feat": object_pixels(features.pix_feat[:, :QUERY]),
    }


def _vit(config: ModelConfig, seen: Mapping[str, Any]) -> Arrays:
    return {
        "vit.patch_embed": _tokens(seen["vit/patch_embed"]),
        "vit.tokens": seen["vit/embed"],
        "vit.block0.attn": seen["vit/blocks_0/attention"],
        "vit.block0": seen["vit/blocks_0"],
        "vit.block_last": seen[f"vit/blocks_{config.encoder_settings.depth - 1}"],
    }


def _spatial_semantic(config: ModelConfig, seen: Mapping[str, Any]) -> Arrays:
    _, detail8, detail16 = seen["spatial_prior"]
    found = {
        "vit.spm.c1": pixels(seen["spatial_prior/proj1"]),
        "vit.spm.c2": _tokens(detail8),
        "vit.spm.c3": _tokens(detail16),
        "vit.inter0.read_from_cls": seen["block0/semantic_embedding"],
        "vit.inter0.extractor": seen["block0/spatial_dependency0"],
        "vit.inter0.extractor.attn": seen["block0/spatial_dependency0/attend"],
        "vit.inter0.extractor.ffn": seen["block0/spatial_dependency0/feed_forward"],
    }
    quarter = config.encoder_settings.depth // NUM_BLOCKS
    for i in range(NUM_BLOCKS):
        tokens = seen[f"vit/blocks_{(i + 1) * quarter - 1}"]
        found[f"vit.inter{i}.cls"] = tokens[:, :1]
        found[f"vit.inter{i}.x"] = tokens[:, 1:]
        found[f"vit.inter{i}.c"] = seen[f"block{i}"]
    return found


def _encoded_masks(stages: Stages) -> Arrays:
    value, summaries = stages["encoded"]
    found = {"enc.deep.sensory": object_pixels(stages["sensory"])}
    for frame, name in enumerate(("deep", "shallow")):
        found[f"enc.{name}.value"] = object_pixels(value[:, frame])
        found[f"enc.{name}.summaries"] = summaries[:, frame]
        found[f"enc.{name}.summary_logits"] = stages["summary_logits"][:, frame]
    return found


def _memory(memory: Arrays) -> Arrays:
    """Return the memory's arrays as recorded: memory tokens first, query pixels last."""
    found = {f"mem.{name}": x.swapaxes(1, 2) for name, x in memory.items() if name != "readout"}
    found["mem.usage_top10"] = memory["affinity_top10"].sum(axis=1)
    found["mem.readout"] = object_pixels(memory["readout"])
    return found


def _transformer(config: ModelConfig, params: Mapping[str, Any], stages: Stages) -> Arrays:
    seen = stages["all"]["seen"]
    pixel_before, read = seen["pixel_init"], seen["blocks_0/read_from_query"]
    found = {
        "mem.fused": object_pixels(stages["fused"]),
        "ot.block0.x_after_read_from_pixel": seen["blocks_0/read_from_pixel"],
        "ot.block0.x_after_self_attn": seen["blocks_0/self_attention"],
        "ot.block0.x_after_ffn": seen["blocks_0/feed_forward"],
        "ot.block0.pixel_after_read_from_query": pixel_before.reshape(read.shape) + read,
        "margin.foreground_gap_per_level": _foreground_gaps(stages["all"]["transformed"].logits),
    }
    for i in range(config.num_blocks):
        query, pixel = seen[f"blocks_{i}"]
        found[f"ot.block{i}.x"] = query
        found[f"ot.block{i}.pixel"] = object_pixels(pixel.reshape(stages["fused"].shape))
    for prefix, name in (("ot", "all"), ("ot.sel", "selected")):
        found |= _levels(prefix, stages[name])
    return found | _last_attention(config, params, seen)


def _levels(prefix: str, stage: Stages) -> Arrays:
    """Return the output, and per level the mask logits and both attention masks of an object."""
    pixel, logits = stage["transformed"]
    found = {f"{prefix}.out": object_pixels(pixel)}
    blocked = [*_as_tuple(stage["seen"]["blocked"]), stage["blocked_last"]]
    for level, pair in enumerate(blocked):
        found[f"{prefix}.logits{level}"] = logits[:, :, level]
        found[f"{prefix}.blocked{level}"] = pair
    return found


def _foreground_gaps(logits: np.ndarray) -> np.ndarray:
    """Return per level the smallest margin, in logits, of the choice of a pixel's object."""
    levels = np.moveaxis(logits, 2, 0)
    ranked = [np.sort(aggregate(jax.nn.sigmoid(level)), axis=1) for level in levels]
    return np.array([np.min(x[:, -1] - x[:, -2]) for x in ranked])


def _last_attention(
    config: ModelConfig, params: Mapping[str, Any], seen: Mapping[str, Any]
) -> Arrays:
    """Return the attention weights of the last block.

    The network does not return them: it multiplies by them at once and folds projections into
    them. Here they are computed from the inputs, in the textbook form.
    """
    block = f"blocks_{config.num_blocks - 1}"
    _, query_pos, pixel, pixel_pos = seen["_embed"]
    b, k, h, w, c = pixel.shape
    tokens = lambda x: x.reshape(b * k, -1, c)  # noqa: E731
    if config.num_blocks > 1:
        _, pixel = seen[f"blocks_{config.num_blocks - 2}"]
    pixel_key, query_pos = tokens(pixel) + tokens(pixel_pos), tokens(query_pos)
    query_key = seen[f"{block}/feed_forward"] + query_pos
    heads = config.num_heads
    read_from_query = _weights(params[block]["read_from_query"], heads, pixel_key, query_key)
    found = {"ot.p_weights": read_from_query.swapaxes(2, 3)}
    if config.query_attention == "multi_head":
        norm = seen[f"{block}/read_from_pixel/norm"]
        pair = _as_tuple(seen["blocked"])[-1].reshape(b * k, 1, 2, h * w)
        blocked = np.repeat(pair, config.num_queries // 2, axis=2)
        attend = params[block]["read_from_pixel"]["attend"]
        found["ot.q_weights"] = _weights(attend, heads, norm + query_pos, pixel_key, blocked)
    else:
        similarity = [
            seen[f"blocks_{i}/read_from_pixel/similarity"] for i in range(config.num_blocks)
        ]
        # Recorded in (pixel, query) order, but with the shape of (query, pixel) order.
        found["ot.q_weights"] = similarity[-1].swapaxes(2, 3)
        found["margin.argmax_gap_per_block"] = np.array([_argmax_gap(x) for x in similarity])
    shape = (b, k, heads, config.num_queries, h, w)
    return found | {x: found[x].reshape(shape) for x in ("ot.q_weights", "ot.p_weights")}


def _weights(
    params: Mapping[str, np.ndarray], heads: int, query: np.ndarray, key: np.ndarray,
    blocked: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Return the weights of multi-head attention, (b heads m n)."""
    c = query.shape[-1]
    q, k = (
        (x @ params["in_kernel"][:, part] + params["in_bias"][part]).reshape(
            *x.shape[:2], heads, -1
        )
        for x, part in ((query, slice(0, c)), (key, slice(c, 2 * c)))
    )
    score = np.einsum("bmhd,bnhd->bhmn", q, k) / np.sqrt(q.shape[-1])
    return np.asarray(
        jax.nn.softmax(score if blocked is None else np.where(blocked, -np.inf, score))
    )


def _argmax_gap(similarity: np.ndarray) -> float:
    """Return the smallest gap between a query's most and second most similar tokens."""
    ranked = np.sort(similarity, axis=-1)
    return float(np.min(ranked[..., -1] - ranked[..., -2]))


def _outputs(suffix: str, stage: Stages) -> Arrays:
    prob, logits = stage["finished"]
    sensory_logits, query_logits = stage["auxiliary"]
    return {
        f"seg{suffix}.sensory": object_pixels(stage["sensory"]),
        f"seg{suffix}.logits": logits,
        f"seg{suffix}.prob": prob,
        f"aux{suffix}.sensory_logits": sensory_logits,
        f"aux{suffix}.q_logits": query_logits,
    }


def _positions(config: ModelConfig, h: int, w: int) -> Arrays:
    table = lambda *size: sinusoidal_encoding(*size, config.width)[None]  # noqa: E731
    return {
        "pe.spatial": table(h, w),
        "pe.summarizer": table(h, w)[None],
        "pe.spatial_5x9": table(5, 9),
        "pe.spatial_1x3": table(1, 3),
    }


def _tokens(x: np.ndarray) -> np.ndarray:
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _as_tuple(sown: Any) -> tuple[np.ndarray, ...]:
    """Return a module's stored values as a tuple, even if there is only one."""
    return sown if isinstance(sown, tuple) else (sown,)
