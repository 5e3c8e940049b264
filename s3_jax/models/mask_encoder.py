"""Mask encoder: from an image and an object's mask to that object's value feature.

See docs/network.md, section 3.1.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from s3_jax.models.layers import Dtype, FeatureFuser
from s3_jax.models.resnet import ResNet


class MaskEncoder(nn.Module):
    """Encoder of object masks: ResNet-18 over [image, mask, other masks], fused with `pix_feat`.

    single_object: leave out the channel for the masks of other objects.
    """

    width: int
    single_object: bool = False
    dtype: Dtype = jnp.float32
    resnet_width: int = 64

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b H W 3"],
        pix_feat: Float[Array, "b h w c"],
        masks: Float[Array, "b k H W"],
        other_masks: Float[Array, "b k H W"],
    ) -> Float[Array, "b k h w c"]:
        b, k = masks.shape[:2]
        channels = [masks] if self.single_object else [masks, other_masks]
        resnet = ResNet(18, self.dtype, self.resnet_width, name="resnet")
        _, _, features = resnet(jnp.stack(channels, -1), image)
        features = features.reshape(b, k, *features.shape[1:])
        return FeatureFuser(self.width, self.dtype, name="fuser")(pix_feat, features)
