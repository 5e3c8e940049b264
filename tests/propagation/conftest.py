"""A tiny network with random weights, and small generated videos."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.config import ModelConfig, ResNetConfig
from s3_jax.conversion.weights import from_torch, torch_shapes
from s3_jax.models.s3 import S3
from s3_jax.propagation import slots
from s3_jax.propagation.frame import Network
from tests.support.weights import state_dict

TINY = ModelConfig(
    encoder="resnet",
    encoder_settings=ResNetConfig(18),
    num_blocks=2,
    num_queries=4,
    width=32,
    key_dim=16,
    num_heads=4,
    ff_dim=64,
    decoder_dims=(32, 16, 16),
    mask_encoder_width=8,
)


# With the published mask encoder, for saved states and for derivatives that are large enough.
WIDE = dataclasses.replace(TINY, mask_encoder_width=64)


@pytest.fixture(scope="session")
def tiny_network() -> Network:
    return _network(TINY)


@pytest.fixture(scope="session")
def wide_network() -> Network:
    return _network(WIDE)


def _network(config: ModelConfig) -> Network:
    variables = from_torch(state_dict(torch_shapes(config)), config)
    used = {name: variables[name] for name in ("params", "batch_stats")}
    return Network(S3(config), jax.tree.map(jnp.asarray, used))


@pytest.fixture
def one_slot_size(monkeypatch) -> None:
    """Six slots from the start, so that random sequences of events share compiled programs."""
    monkeypatch.setattr(slots, "slot_size", lambda count: max(6, count))


class Video:
    """Coloured squares that wander over a textured background, with their index masks."""

    def __init__(self, frames: int, height: int = 64, width: int = 96, objects: int = 3):
        rng = np.random.default_rng(3)
        background = rng.integers(0, 255, (height, width, 3), np.uint8)
        colours = rng.integers(0, 255, (objects, 3), np.uint8)
        self.frames = np.repeat(background[None], frames, axis=0)
        self.masks = np.zeros((frames, height, width), np.uint8)
        for t in range(frames):
            for k in range(objects):
                y = (10 + 17 * k + t) % (height - 20)
                x = (5 + 23 * k + 2 * t) % (width - 24)
                self.frames[t, y : y + 20, x : x + 24] = colours[k]
                self.masks[t, y : y + 20, x : x + 24] = k + 1

    def hard_masks(self, t: int, *ids: int) -> dict[int, np.ndarray]:
        """Masks of the given objects in frame t."""
        return {k: self.masks[t] == k for k in ids}


@pytest.fixture(scope="session")
def video() -> Video:
    return Video(16)
