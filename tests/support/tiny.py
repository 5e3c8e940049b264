"""Small networks of every kind, weights made by the recordings' rule, and a frame for them."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from s3_jax.config import CompactConfig, ModelConfig, ResNetConfig, ViTConfig
from s3_jax.conversion.weights import from_torch, torch_shapes
from s3_jax.memory.read import read_frames
from s3_jax.models.key_projection import Key
from s3_jax.models.s3 import S3, ImageFeatures
from tests.support.weights import state_dict

SPATIAL_SEMANTIC = ModelConfig(
    encoder="spatial_semantic",
    encoder_settings=ViTConfig(embed_dim=24, depth=4, num_heads=3, position_grid=3),
    num_blocks=2,
    num_queries=4,
    width=32,
    key_dim=8,
    num_heads=4,
    ff_dim=64,
    decoder_dims=(32, 16, 16),
)
RESNET = dataclasses.replace(SPATIAL_SEMANTIC, encoder="resnet", encoder_settings=ResNetConfig(18))
CONFIGS = {
    "spatial_semantic": SPATIAL_SEMANTIC,
    "feature_pyramid": dataclasses.replace(SPATIAL_SEMANTIC, encoder="feature_pyramid"),
    "compact_semantic": dataclasses.replace(
        SPATIAL_SEMANTIC,
        encoder="compact_semantic",
        encoder_settings=CompactConfig(embed_dim=24, num_heads=3, stem_width=8),
        mask_encoder_width=16,
    ),
    "resnet18": RESNET,
    "resnet50": dataclasses.replace(RESNET, encoder_settings=ResNetConfig(50)),
    "multi_head": dataclasses.replace(RESNET, query_attention="multi_head", size_multiple=16),
    "single_object": dataclasses.replace(RESNET, single_object=True),
}


@functools.cache
def tensors(config: ModelConfig) -> dict[str, np.ndarray]:
    """Return a PyTorch state dict for the network."""
    return state_dict(torch_shapes(config))


@functools.cache
def variables(config: ModelConfig) -> dict[str, Any]:
    """Return the same weights as Flax variables."""
    found = from_torch(tensors(config), config)
    return jax.tree.map(jnp.asarray, {name: found[name] for name in ("params", "batch_stats")})


def frame(batch: int = 1, objects: int = 2, size: tuple[int, int] = (32, 64)) -> dict[str, Any]:
    """Return a random image (b H W 3), masks (b k H W) and sensory memory (b k h w c)."""
    random = np.random.default_rng(0)
    h, w = size
    state = (batch, objects, h // 16, w // 16, SPATIAL_SEMANTIC.width)
    blobs = random.random((batch, objects, h // 8, w // 8)) > 0.6
    return {
        "image": jnp.asarray(random.random((batch, h, w, 3)), jnp.float32),
        "masks": jnp.asarray(np.kron(blobs, np.ones((8, 8))), jnp.float32),
        "sensory": jnp.asarray(random.normal(size=state), jnp.float32),
    }


def run_objects(
    net: S3, features: ImageFeatures, image: jax.Array, masks: jax.Array, sensory: jax.Array,
    valid: jax.Array | None = None, group: jax.Array | None = None, chunk_size: int = -1,
) -> dict[str, Any]:  # fmt: skip
    """Do all that the network does for objects: put the frame into the memory, then segment it.

    Pass this function to `S3.apply` as `method`.
    """
    encoded = net.encode_mask(image, features.pix_feat, masks, chunk_size)
    sensory = net.update_sensory_deep(sensory, encoded.value, chunk_size)
    summed, area = encoded.summaries[..., :-1], encoded.summaries[..., -1:]
    segmented = net.segment(
        features, _read(features.key, encoded.value), sensory, masks, summed / (area + 1e-4),
        valid, group, chunk_size,
    )  # fmt: skip
    logits = segmented.transformed.logits
    return {
        "summaries": encoded.summaries,
        "value": encoded.value,
        "segmented": segmented,
        "sensory": net.update_sensory(sensory, segmented.decoded.sensory_input, chunk_size),
        "auxiliary": net.predict_auxiliary(features.pix_feat, sensory, logits, valid),
    }


def run_frame(net: S3, image: jax.Array, masks: jax.Array, sensory: jax.Array) -> dict[str, Any]:
    """Do the same as `run_objects`, starting from the image."""
    return run_objects(net, net.encode_image(image), image, masks, sensory)


def _read(key: Key, value: jax.Array) -> jax.Array:
    """Return the readout of a memory that holds this same frame."""
    b, k, h, w, c = value.shape
    flat = lambda x: x.reshape(b, h * w, -1)  # noqa: E731
    memory = flat(key.key)[:, None], key.shrinkage.reshape(b, 1, -1), value.reshape(b, k, 1, -1, c)
    query = flat(key.key), flat(key.selection)
    return read_frames(*memory, jnp.ones((b, 1), bool), *query).reshape(value.shape)
