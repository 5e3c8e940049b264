"""Image encoder of the ancestor's networks: a ResNet whose BatchNorm is never updated."""

import flax.linen as nn
from jaxtyping import Array, Float

from s3_jax.config import ResNetConfig
from s3_jax.models.encoders import Encoder, Features, normalize
from s3_jax.models.resnet import ResNet


class ResNetEncoder(Encoder):
    """Strides 4, 8 and 16 of a ResNet-18 or ResNet-50."""

    settings: ResNetConfig = ResNetConfig()

    @nn.compact
    def __call__(self, image: Float[Array, "b H W 3"], train: bool = False) -> Features:
        del train
        network = ResNet(self.settings.depth, self.dtype)
        nn.share_scope(self, network)
        f4, f8, f16 = network(normalize(image))
        return Features(f16, f8, f4)
