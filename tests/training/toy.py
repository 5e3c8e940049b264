"""A network of three numbers that replaces S3 in tests of the step around it.

It has a parameter in every group of the optimizer, the frozen one included, BatchNorm statistics,
and logits that depend on all of them.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from s3_jax.models.s3 import S3
from s3_jax.training.clip import ClipBatch, ClipPrediction
from s3_jax.training.step_config import ClipConfig, LossConfig, OptimizerConfig, StepConfig
from tests.support import tiny

CONFIG = tiny.CONFIGS["spatial_semantic"]
LEVELS = CONFIG.num_blocks + 1
# A large epsilon makes the update a smooth function of the gradient.
OPTIMIZER = OptimizerConfig(learning_rate=0.1, epsilon=1.0, decay="constant")
SETTINGS = StepConfig(
    clip=ClipConfig(num_objects=2), loss=LossConfig(num_points=16), optimizer=OPTIMIZER
)


def variables() -> dict[str, Any]:
    number = lambda x: jnp.full((1,), x, jnp.float32)  # noqa: E731
    return {
        "params": {
            "image_encoder": {
                "vit": {"blocks_0": number(0.5), "cls_token": number(0.3)},
                "norm": number(1.0),
            },
            "object_transformer": {"query_init": number(-0.2)},
            "mask_decoder": number(0.4),
        },
        "batch_stats": {"norm": number(0.0)},
    }


def batch(rows: int, seed: int = 0, frames: int = 3, size: int = 8) -> ClipBatch:
    """Random square clips with one or two objects."""
    random = np.random.default_rng(seed)
    shape = (rows, frames, size, size)
    counts = random.integers(1, 3, rows)
    masks = random.integers(0, counts.reshape(-1, 1, 1, 1) + 1, shape)
    return ClipBatch(
        random.integers(0, 256, (*shape, 3), dtype=np.uint8),
        masks.astype(np.uint8),
        counts.astype(np.int32),
    )


def run_clip(
    model: S3,
    variables: dict[str, Any],
    config: ClipConfig,
    batch: ClipBatch,
    draws: Any,
    normalize: bool = True,
) -> tuple[ClipPrediction, Any]:
    """Stand-in for `clip.run_clip`.

    Args:
      normalize: subtract the mean of the batch, over all replicas; else BatchNorm is frozen.
    """
    params = variables["params"]
    encoder = params["image_encoder"]
    images = jnp.asarray(batch.frames[:, 1:], jnp.float32).mean(-1) / 255
    mean = images.mean() if normalize else jnp.zeros(())
    if model.axis_name is not None:
        mean = lax.pmean(mean, model.axis_name)
    vit = encoder["vit"]["blocks_0"] + lax.stop_gradient(encoder["vit"]["cls_token"])
    maps = (images - mean) * encoder["norm"][0] + vit[0] * params["mask_decoder"][0]
    maps = jnp.moveaxis(maps, 1, 0)[:, :, None] * jnp.arange(config.num_objects + 1).reshape(
        1, 1, -1, 1, 1
    )
    small = maps[..., ::4, ::4] * params["object_transformer"]["query_init"][0]
    statistics = {"norm": 0.9 * variables["batch_stats"]["norm"] + 0.1 * mean}
    return ClipPrediction(maps, small, jnp.stack([small] * LEVELS, axis=3)), statistics
