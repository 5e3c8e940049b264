"""Image encoder of small models: spatial-semantic blocks around an EfficientNet-Lite0.

Where the large models read a vision transformer's tokens and class token, these read the compact
network's stride-16 tokens and the mean of its deepest features. Its maps of strides 4 and 8, which
a vision transformer does not have, join the outputs of those strides.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from s3_jax.config import CompactConfig
from s3_jax.models.efficientnet import EfficientNetLite0, SemanticMaps
from s3_jax.models.encoders.spatial_semantic import Details, Pyramid, SpatialSemanticBlock
from s3_jax.models.layers import Dtype, Linear
from s3_jax.ops.deformable import Form
from s3_jax.ops.resize import resize_bilinear

NUM_BLOCKS = 3


class CompactSemanticEncoder(nn.Module):
    """Image to feature maps at strides 4, 8 and 16.

    trainable_blocks: spatial-semantic blocks whose part of the EfficientNet receives gradients
      (`efficientnet.PARTS`); the rest of it is frozen and costs no backward pass.
    """

    compact: CompactConfig
    form: Form = "auto"
    trainable_blocks: tuple[int, ...] = ()
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b H W 3"],
        normalized: Float[Array, "b H W 3"],
        skip: Linear,
        train: bool = False,
    ) -> Pyramid:
        """Args:
        image: RGB in [0, 1]; normalized: the same as the rest of the network sees it.
        skip: makes `Pyramid.skip4`.
        """
        c, (b, h, w) = self.compact.embed_dim, (image.shape[0], *_sixteenth(image))
        backbone = EfficientNetLite0(self.trainable_blocks, self.dtype, name="backbone")
        maps = backbone(image)
        details = Details(c, self.compact.stem_width, self.axis_name, self.dtype)
        nn.share_scope(self, details)
        stem4, detail = details.tokens(normalized, train)
        semantics = self._semantic_maps(maps, (h, w))
        for i, x in enumerate(semantics):
            cls = self._class_token(maps, i) if self.compact.semantic_embedding else None
            block = SpatialSemanticBlock(
                self.compact.num_heads, int(self.compact.spatial_dependency), self.form, self.dtype,
                name=f"block{i}",
            )  # fmt: skip
            detail = block(detail, cls, x.reshape(b, h * w, c), h, w)
        local = (self._proj("local4")(maps.f4), self._proj("local8")(maps.f8))
        return details.pyramid(stem4, detail, (*local, semantics[1]), skip, train)

    def _semantic_maps(self, maps: SemanticMaps, size: tuple[int, int]) -> list[Array]:
        """For every block what it reads, at stride 16."""
        deep = resize_bilinear(self._proj("semantic2")(maps.f32), size)
        return [self._proj("semantic0")(maps.f16_low), self._proj("semantic1")(maps.f16), deep]

    def _class_token(self, maps: SemanticMaps, block: int) -> Float[Array, "b 1 c"]:
        return self._proj(f"cls{block}")(jnp.mean(maps.f32, (1, 2)))[:, None]

    def _proj(self, name: str) -> Linear:
        return Linear(self.compact.embed_dim, dtype=self.dtype, name=name)


def _sixteenth(image: Float[Array, "b H W 3"]) -> tuple[int, int]:
    return image.shape[1] // 16, image.shape[2] // 16
