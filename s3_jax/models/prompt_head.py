"""Prompt head: an object's mask from an image's maps, clicks, a box and an earlier mask.

The maps are those of an EfficientNet-Lite0. At stride 16 every position attends to every other,
which lets one click find the whole object. Strides 8, 4 and 2 recover its outline. The prompts
enter at every stride, as maps (`prompt_maps`) and as the similarity of each position to the clicked
ones. See docs/network.md, section 11.
"""

import functools
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from s3_jax.models.attention import MultiHeadAttention
from s3_jax.models.efficientnet import DetailedMaps, EfficientNetLite0
from s3_jax.models.layers import DepthwiseConv3x3, Dtype, LayerNorm, Linear
from s3_jax.models.prompt_maps import MASK_STRIDE, Prompts, prompt_maps, similarities
from s3_jax.models.variables import Variables, flatten
from s3_jax.ops.precision import widen
from s3_jax.ops.resize import resize_bilinear

# Name of the head's parameters among a network's, where a training run keeps them.
PROMPT_HEAD = "prompt_head"


class PromptLogits(NamedTuple):
    """Logits of the object.

    fine: result at stride 2.
    f8, f16: logits at strides 8 and 16, which losses may use.
    """

    fine: Float[Array, "b h2 w2"]
    f8: Float[Array, "b h8 w8"]
    f16: Float[Array, "b h16 w16"]


class PromptHead(nn.Module):
    """Network from maps and prompts of b views to logits.

    widths: channels at strides 16, 8, 4 and 2.
    blocks: number of blocks at each stride.
    dtype: type of the computation.
    """

    widths: tuple[int, int, int, int] = (160, 80, 64, 24)
    blocks: tuple[int, int, int, int] = (4, 3, 3, 2)
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: DetailedMaps, prompts: Prompts) -> PromptLogits:
        deep = resize_bilinear(maps.f32, (maps.f16.shape[1], maps.f16.shape[2]))
        wide = jnp.concatenate([maps.f16_low, maps.f16, deep], -1)
        x = self._enter(wide, prompts, 16)
        for i in range(self.blocks[0]):
            x = GlobalBlock(4, self.dtype, name=f"global{i}")(x)
        logits = [self._logits(x, 16)]
        for skip, stride in ((maps.f8, 8), (maps.f4, 4), (maps.f2, 2)):
            x = self._enlarge(x, stride) + self._enter(skip, prompts, stride)
            for i in range(self._of(self.blocks, stride)):
                x = LocalBlock(self.dtype, name=f"local{stride}_{i}")(x)
            logits.append(self._logits(x, stride))
        return PromptLogits(logits[3], logits[1], logits[0])

    def _enter(self, features: Array, prompts: Prompts, stride: int) -> Array:
        """Project features and prompts, and sum them."""
        width = self._of(self.widths, stride)
        image = Linear(width, dtype=self.dtype, name=f"image{stride}")(features)
        image = LayerNorm(dtype=self.dtype, name=f"image_norm{stride}")(image)
        likeness = similarities(widen(image), prompts, stride)
        told = jnp.concatenate([prompt_maps(prompts, stride), likeness], -1)
        return image + Linear(width, dtype=self.dtype, name=f"prompt{stride}")(told)

    def _enlarge(self, x: Array, stride: int) -> Array:
        size = (2 * x.shape[1], 2 * x.shape[2])
        name, width = f"up{stride}", self._of(self.widths, stride)
        return resize_bilinear(Linear(width, dtype=self.dtype, name=name)(x), size)

    def _logits(self, x: Array, stride: int) -> Array:
        x = widen(LayerNorm(dtype=self.dtype, name=f"norm{stride}")(x))
        return Linear(1, name=f"logits{stride}")(x)[..., 0]

    @nn.nowrap
    def _of(self, values: tuple[int, int, int, int], stride: int) -> int:
        return dict(zip((16, 8, 4, 2), values, strict=True))[stride]


class GlobalBlock(nn.Module):
    """Residual block that mixes neighbours, then all positions (attention), then channels."""

    num_heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        x = x + DepthwiseConv3x3(dtype=self.dtype, name="neighbours")(x)
        tokens = LayerNorm(dtype=self.dtype, name="attention_norm")(x).reshape(b, h * w, c)
        attention = MultiHeadAttention(self.num_heads, dtype=self.dtype, name="attention")
        x = x + attention(tokens, tokens, tokens).reshape(x.shape)
        return x + ChannelLayers(self.dtype, name="channels")(x)


class LocalBlock(nn.Module):
    """Residual block of a depth-wise convolution and two layers over channels."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        y = DepthwiseConv3x3(dtype=self.dtype, name="neighbours")(x)
        return x + ChannelLayers(self.dtype, name="channels")(y)


class ChannelLayers(nn.Module):
    """Normalization and two layers over channels, twice as wide between them."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        y = LayerNorm(dtype=self.dtype, name="norm")(x)
        y = nn.relu(Linear(2 * x.shape[-1], dtype=self.dtype, name="widen")(y))
        return Linear(x.shape[-1], dtype=self.dtype, name="narrow")(y)


def trunk_maps(
    trunk: Variables, image: Float[Array, "b H W 3"], dtype: Dtype = jnp.float32
) -> DetailedMaps:
    """Return the maps that the head reads.

    trunk: variables of an `EfficientNetLite0`. image: RGB in [0, 1].
    """
    return cast(DetailedMaps, EfficientNetLite0(dtype).apply(trunk, image, method="detailed"))


def initial_prompt_head(seed: int = 0) -> dict[str, Any]:
    """Return the prompt head's initial parameters as NumPy arrays."""
    return jax.device_get(PromptHead().lazy_init(jax.random.key(seed), *_inputs())["params"])


@functools.cache
def prompt_head_shapes() -> dict[str, tuple[int, ...]]:
    """Return the shapes of the prompt head's parameters by slash-separated name."""
    variables = jax.eval_shape(PromptHead().init, jax.random.key(0), *_inputs())
    return {name: x.shape for name, x in flatten(variables["params"]).items()}


def _inputs() -> tuple[DetailedMaps, Prompts]:
    side = 64
    image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    trunk = jax.eval_shape(EfficientNetLite0().init, jax.random.key(0), image)
    maps = jax.eval_shape(trunk_maps, trunk, image)
    half = side // MASK_STRIDE
    shapes = ((1, 2, 2), (1, 2), (1, 4), (1,), (1, half, half), (1,))
    types = (np.float32, np.int32, *[np.float32] * 4)
    prompts: list[Any] = list(map(jax.ShapeDtypeStruct, shapes, types))
    return maps, Prompts(*prompts)
