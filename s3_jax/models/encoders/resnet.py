"""Image encoder of Cutie's networks: a ResNet whose BatchNorm statistics never change."""

import flax.linen as nn
from jaxtyping import Array, Float

from s3_jax.config import ResNetConfig
from s3_jax.models.encoders import Encoder, Features, normalize
from s3_jax.models.resnet import ResNet


class ResNetEncoder(Encoder):
    """ResNet-18 or ResNet-50 that returns its maps at strides 4, 8 and 16."""

    settings: ResNetConfig = ResNetConfig()

    @nn.compact
    def __call__(self, image: Float[Array, "b H W 3"], train: bool = False) -> Features:
        del train
        network = ResNet(self.settings.depth, self.dtype)
        nn.share_scope(self, network)
        f4, f8, f16 = network(normalize(image))
        return Features(f16, f8, f4)
