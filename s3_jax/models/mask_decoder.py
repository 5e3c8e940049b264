"""Mask decoder: from per-object maps and image features to mask logits.

See docs/network.md, section 7.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from s3_jax.models.layers import Conv, Dtype, GatedUpdate, Linear
from s3_jax.ops.precision import wide_type, widen
from s3_jax.ops.resize import resize_area, resize_bilinear


class UpsampleBlock(nn.Module):
    """Twofold enlargement of an object's map, sum with the image's skip map, residual block."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b k h w i"], skip: Float[Array, "b 2*h 2*w i"]
    ) -> Float[Array, "b k 2*h 2*w o"]:
        b, k, h, w, channels = x.shape
        x = resize_bilinear(x.reshape(b * k, h, w, channels), (2 * h, 2 * w))
        x = x.reshape(b, k, 2 * h, 2 * w, channels) + skip[:, None]
        x = x.reshape(b * k, 2 * h, 2 * w, channels)
        y = Conv(self.features, dtype=self.dtype, name="conv1")(nn.relu(x))
        y = Conv(self.features, dtype=self.dtype, name="conv2")(nn.relu(y))
        if channels != self.features:
            x = Linear(self.features, dtype=self.dtype, name="shortcut")(x)
        return (x + y).reshape(b, k, 2 * h, 2 * w, self.features)


class MaskDecoder(nn.Module):
    """Decoder from the object transformer's pixel map to mask logits at stride 4.

    `skip8` and `skip4` project an image's features to the maps that are added to every object's.
    The decoder also updates the sensory memory (`sensory_input`, `gated_update`).
    """

    width: int
    dims: tuple[int, int, int]
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        self.skip8 = Linear(self.dims[0], dtype=self.dtype)
        self.skip4 = Linear(self.dims[1], dtype=self.dtype)
        self.up_16_8 = UpsampleBlock(self.dims[1], self.dtype)
        self.up_8_4 = UpsampleBlock(self.dims[2], self.dtype)
        wide = wide_type(self.dtype)
        self.predict = Conv(1, dtype=wide)
        self.sensory_from_16 = Linear(self.width, dtype=wide)
        self.sensory_from_8 = Linear(self.width, dtype=wide)
        self.sensory_from_4 = Linear(self.width, dtype=wide)
        self.gated_update = GatedUpdate()

    def __call__(
        self,
        pixel: Float[Array, "b k h w c"],
        skip8: Float[Array, "b 2*h 2*w d8"],
        skip4: Float[Array, "b 4*h 4*w d4"],
    ) -> tuple[
        Float[Array, "b k 4*h 4*w"], Float[Array, "b k 2*h 2*w m8"], Float[Array, "b k 4*h 4*w m4"]
    ]:
        """Return logits in float32, and the decoder's own maps at strides 8 and 4."""
        map8 = self.up_16_8(pixel, skip8)
        map4 = self.up_8_4(map8, skip4)
        b, k, h, w, channels = map4.shape
        logits = self.predict(widen(nn.relu(map4.reshape(b * k, h, w, channels))))
        return logits.reshape(b, k, h, w), map8, map4

    def sensory_input(
        self,
        pixel: Float[Array, "b k h w c"],
        map8: Float[Array, "b k 2*h 2*w m8"],
        map4: Float[Array, "b k 4*h 4*w m4"],
        logits: Float[Array, "b k 4*h 4*w"],
    ) -> Float[Array, "b k h w c"]:
        """Return the input of the sensory update, from maps of all three strides, float32.

        See docs/network.md, section 7.2.
        """
        size = (pixel.shape[2], pixel.shape[3])
        # Average before concatenation: 129 channels would take twice a TPU's 128 lanes.
        parts4 = [_area(widen(map4), size), _area(logits[..., None], size)]
        return (
            self.sensory_from_16(pixel)
            + self.sensory_from_8(_area(widen(map8), size))
            + self.sensory_from_4(jnp.concatenate(parts4, axis=-1))
        )


def _area(x: Float[Array, "b k h w c"], size: tuple[int, int]) -> Float[Array, "b k h2 w2 c"]:
    b, k, h, w, c = x.shape
    return resize_area(x.reshape(b * k, h, w, c), size).reshape(b, k, *size, c)
