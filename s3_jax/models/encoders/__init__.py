"""Image encoders: their interface, and construction of the encoder that a configuration names.

An encoder is one file: a frozen dataclass for its settings, and a subclass of `Encoder` that turns
frames into feature maps. The package's own encoders are in this directory. A configuration names
any other as `package.module:Name` (docs/extend.md has a complete example).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from s3_jax.config import ModelConfig, load_encoder
from s3_jax.errors import InputError
from s3_jax.models.layers import Axes, Dtype, Linear
from s3_jax.ops.precision import widen

PIXEL_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
PIXEL_STD = np.array([0.229, 0.224, 0.225], np.float32)
# Name of the activations that rematerialization keeps.
KEPT = "kept"


class Features(NamedTuple):
    """Feature maps of frames; numbers give the stride, and each encoder chooses its widths.

    project4: function that applies a linear layer to f4 without computing f4, where the encoder
      offers one.
    """

    f16: Float[Array, "b h w c16"]
    f8: Float[Array, "b h8 w8 c8"]
    f4: Float[Array, "b h4 w4 c4"]
    project4: Callable[[Linear], Float[Array, "b h4 w4 o"]] | None = None


class Encoder(nn.Module):
    """Base class of image encoders; a subclass need only define `__call__`.

    settings: a frozen dataclass; a subclass annotates the field with its own class.
    axis_name: mapped axis over which BatchNorm statistics are averaged in training.
    dtype: type of the computation; parameters are always float32.
    """

    settings: Any = None
    axis_name: Axes | None = None
    dtype: Dtype = jnp.float32

    def __call__(self, image: Float[Array, "b H W 3"], train: bool = False) -> Features:
        """Return the feature maps of frames.

        Args:
          image: RGB in [0, 1]; H and W are multiples of the network's `size_multiple`.
          train: True in training, where BatchNorm may use the statistics of the batch
            (`nn.Module.variable` in the collection "batch_stats").
        """
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")

    @nn.nowrap
    def frozen(self, path: tuple[str, ...], trainable_blocks: tuple[int, ...]) -> bool:
        """Return True for a parameter that training does not change; False for all by default.

        Args:
          path: names of the modules in the encoder that contain the parameter, then its own name.
          trainable_blocks: numbers of the parts of a pretrained network that are fine-tuned.
        """
        del path, trainable_blocks
        return False


def make_encoder(
    config: ModelConfig, axis_name: Axes | None = None, dtype: Dtype = jnp.float32
) -> Encoder:
    """Return the image encoder of a configuration.

    Raises:
      InputError: the configuration does not name an encoder.
    """
    encoder = load_encoder(config.encoder)
    if not (isinstance(encoder, type) and issubclass(encoder, Encoder)):
        raise InputError(
            f"encoder {config.encoder} is not a subclass of s3_jax.models.encoders.Encoder"
        )
    return encoder(config.encoder_settings, axis_name, dtype)


def normalize(image: Float[Array, "b H W 3"]) -> Float[Array, "b H W 3"]:
    """Normalize RGB in [0, 1] by ImageNet's mean and standard deviation, in float32 or wider."""
    shape = (1, 1, 1, 3)
    return (widen(image) - PIXEL_MEAN.reshape(shape)) / PIXEL_STD.reshape(shape)


def keep(x: Array) -> Array:
    """Mark an activation to keep, so that rematerialization recomputes nothing before it."""
    return checkpoint_name(x, KEPT)
