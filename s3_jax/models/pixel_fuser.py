"""Pixel fusion: memory readout joined with sensory memory and last mask.

See docs/network.md, section 4.3.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from s3_jax.models.layers import Dtype, FeatureFuser, Linear


class PixelFuser(nn.Module):
    """Sum of readout and projected [sensory, last mask, others], fused with the pixel feature."""

    width: int
    single_object: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        pix_feat: Float[Array, "b h w c"],
        readout: Float[Array, "b k h w c"],
        sensory: Float[Array, "b k h w c"],
        masks: Float[Array, "b k h w"],
        other_masks: Float[Array, "b k h w"],
    ) -> Float[Array, "b k h w c"]:
        channels = [masks] if self.single_object else [masks, other_masks]
        state = jnp.concatenate([sensory, jnp.stack(channels, -1)], axis=-1)
        state = Linear(self.width, dtype=self.dtype, name="state_proj")(state)
        fuser = FeatureFuser(self.width, self.dtype, name="fuser")
        return fuser(pix_feat, readout.astype(self.dtype) + state)
