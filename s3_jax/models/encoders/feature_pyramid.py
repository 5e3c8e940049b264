"""ViT with a simple feature pyramid: the ablation without spatial-semantic blocks.

See docs/network.md, section 2.5.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from s3_jax.config import ViTConfig
from s3_jax.models.encoders import Encoder, Features, keep, normalize
from s3_jax.models.layers import Conv, Dtype, LayerNorm, Linear, Upsample2x
from s3_jax.models.vit import NORM_EPSILON, ViT, frozen_in_vit


class PyramidHead(nn.Module):
    """Head that doubles the stride-16 map `doublings` times, then convolves it 1 x 1 and 3 x 3."""

    doublings: int
    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        for i in range(self.doublings):
            if i > 0:
                x = nn.gelu(self._norm("up_norm")(x), approximate=False)
            x = Upsample2x(self.features // 2 ** (i + 1), dtype=self.dtype, name=f"up{i + 1}")(x)
        x = Linear(self.features, use_bias=False, dtype=self.dtype, name="proj")(x)
        x = self._norm("proj_norm")(x)
        x = Conv(self.features, use_bias=False, dtype=self.dtype, name="conv")(x)
        return self._norm("conv_norm")(x)

    def _norm(self, name: str) -> LayerNorm:
        return LayerNorm(NORM_EPSILON, self.dtype, name=name)


class FeaturePyramidEncoder(Encoder):
    """ViT whose blocks, run without the class token, feed one head per stride."""

    settings: ViTConfig = ViTConfig()

    @nn.compact
    def __call__(self, image: Float[Array, "b H W 3"], train: bool = False) -> Features:
        del train
        b, h, w = image.shape[0], image.shape[1] // 16, image.shape[2] // 16
        vit = ViT(self.settings, self.dtype, name="vit")
        tokens = vit.embed(normalize(image))[:, 1:]
        x = keep(vit.run_blocks(tokens, 0, self.settings.depth)).reshape(b, h, w, -1)
        f16, f8, f4 = (
            PyramidHead(doublings, self.settings.embed_dim, self.dtype, name=f"head{stride}")(x)
            for doublings, stride in ((0, 16), (1, 8), (2, 4))
        )
        return Features(f16, f8, f4)

    @nn.nowrap
    def frozen(self, path: tuple[str, ...], trainable_blocks: tuple[int, ...]) -> bool:
        """Return True for the ViT, except for the quarters with these numbers."""
        return frozen_in_vit(path, self.settings, trainable_blocks)
