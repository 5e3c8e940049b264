"""Image encoder of small models: spatial-semantic blocks around an EfficientNet-Lite0.

The large models read a vision transformer's patch tokens and class token. These models read the
compact network's stride-16 maps and the mean of its deepest map instead. The compact network also
has maps at strides 4 and 8, which are added to the outputs (docs/network.md, section 2.8).
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from s3_jax.config import CompactConfig
from s3_jax.models.efficientnet import EfficientNetLite0, SemanticMaps, part_names
from s3_jax.models.encoders import Encoder, Features, normalize
from s3_jax.models.encoders.spatial_semantic import Details, SpatialSemanticBlock
from s3_jax.models.layers import Linear
from s3_jax.ops.resize import resize_bilinear

NUM_BLOCKS = 3


class CompactSemanticEncoder(Encoder):
    """Compact encoder from images to feature maps at strides 4, 8 and 16.

    `trainable_blocks` are parts of the EfficientNet (`efficientnet.PARTS`).
    """

    settings: CompactConfig = CompactConfig()

    @nn.compact
    def __call__(self, image: Float[Array, "b H W 3"], train: bool = False) -> Features:
        settings, c = self.settings, self.settings.embed_dim
        b, h, w = image.shape[0], image.shape[1] // 16, image.shape[2] // 16
        maps = EfficientNetLite0(self.dtype, name="backbone")(image)
        details = Details(c, settings.stem_width, self.axis_name, self.dtype)
        nn.share_scope(self, details)
        stem4, detail = details.tokens(normalize(image), train)
        semantics = self._semantic_maps(maps, (h, w))
        for i, x in enumerate(semantics):
            cls = self._class_token(maps, i) if settings.semantic_embedding else None
            extractors = int(settings.spatial_dependency)
            block = SpatialSemanticBlock(settings.num_heads, extractors, self.dtype,
                                         name=f"block{i}")  # fmt: skip
            detail = block(detail, cls, x.reshape(b, h * w, c), h, w)
        local = (self._proj("local4")(maps.f4), self._proj("local8")(maps.f8))
        return details.pyramid(stem4, detail, (*local, semantics[1]), train)

    @nn.nowrap
    def frozen(self, path: tuple[str, ...], trainable_blocks: tuple[int, ...]) -> bool:
        """Return True for the EfficientNet, except for the parts with these numbers."""
        trainable = {name for part in trainable_blocks for name in part_names(part)}
        return path[0] == "backbone" and path[1] not in trainable

    def _semantic_maps(self, maps: SemanticMaps, size: tuple[int, int]) -> list[Array]:
        """Return, for every block, the map at stride 16 that it reads."""
        deep = resize_bilinear(self._proj("semantic2")(maps.f32), size)
        return [self._proj("semantic0")(maps.f16_low), self._proj("semantic1")(maps.f16), deep]

    def _class_token(self, maps: SemanticMaps, block: int) -> Float[Array, "b 1 c"]:
        return self._proj(f"cls{block}")(jnp.mean(maps.f32, (1, 2)))[:, None]

    def _proj(self, name: str) -> Linear:
        return Linear(self.settings.embed_dim, dtype=self.dtype, name=name)
