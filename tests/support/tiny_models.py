"""The smallest possible networks (with ResNets of full width), and weights for them."""

import dataclasses
import functools

import numpy as np

from s3_jax.config import ModelConfig, ResNetConfig, ViTConfig
from s3_jax.conversion.weights import Variables, from_torch, torch_shapes
from tests.support.weights import state_dict

TINY_VIT = ModelConfig(
    encoder="feature_pyramid",
    encoder_settings=ViTConfig(embed_dim=64, depth=2, num_heads=1, position_grid=3),
    num_blocks=1,
    num_queries=4,
    width=32,
    key_dim=16,
    num_heads=1,
    ff_dim=48,
    decoder_dims=(32, 24, 16),
)
NARROW = dataclasses.replace(TINY_VIT, mask_encoder_width=8)  # a fifth of the parameters to write
TINY_RESNET = ModelConfig(
    encoder="resnet",
    encoder_settings=ResNetConfig(18),
    query_attention="multi_head",
    num_blocks=1,
    num_queries=2,
    width=32,
    key_dim=8,
    num_heads=1,
    ff_dim=40,
    decoder_dims=(32, 16, 16),
    size_multiple=16,
)


@functools.lru_cache(maxsize=8)
def _tensors(config: ModelConfig, seed: int) -> dict[str, np.ndarray]:
    return state_dict(torch_shapes(config), seed)


def tiny_tensors(config: ModelConfig = TINY_VIT, seed: int = 0) -> dict[str, np.ndarray]:
    """Return a state dict with PyTorch's names."""
    return {key: value.copy() for key, value in _tensors(config, seed).items()}


def tiny_variables(config: ModelConfig = TINY_VIT, seed: int = 0) -> Variables:
    """Return the same weights as Flax variables."""
    return from_torch(tiny_tensors(config, seed), config)
