"""The stateless S3 network: one method for every step of a frame except those of the memory.

    frame -> encode_image -> read_memory -> fuse_pixels -> transform_objects -> decode_mask -> mask
    on memory frames: mask -> encode_mask -> (value and summaries for the memory)

`S3.segment` runs fuse_pixels to decode_mask of the first line. The memory itself is outside
(`s3_jax.memory`): the values that a frame's key reads from it are passed in as `readout`.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from s3_jax.config import ModelConfig
from s3_jax.models.auxiliary import AuxiliaryHeads
from s3_jax.models.chunks import map_objects
from s3_jax.models.encoders import make_encoder, normalize
from s3_jax.models.key_projection import Key, KeyProjection
from s3_jax.models.layers import Axes, Dtype, GatedUpdate, Linear
from s3_jax.models.mask_decoder import MaskDecoder
from s3_jax.models.mask_encoder import MaskEncoder
from s3_jax.models.masks import aggregate, others, softmax_over_objects
from s3_jax.models.object_summarizer import ObjectSummarizer
from s3_jax.models.object_transformer import ObjectTransformer, TransformerOutput
from s3_jax.models.pixel_fuser import PixelFuser
from s3_jax.ops.resize import resize_masks


class ImageFeatures(NamedTuple):
    """Features of one frame, shared by all objects; numbers give the stride.

    skip8 and skip4 are f8 and f4 in the form that the mask decoder adds to its maps. Nothing else
    needs f8 and f4, so with the spatial-semantic encoder compiled programs never compute f4.
    """

    f16: Float[Array, "b h w c16"]
    f8: Float[Array, "b h8 w8 c8"]
    f4: Float[Array, "b h4 w4 c4"]
    skip8: Float[Array, "b h8 w8 d8"]
    skip4: Float[Array, "b h4 w4 d4"]
    pix_feat: Float[Array, "b h w c"]
    key: Key


class EncodedMask(NamedTuple):
    """Contribution of a memory frame to the memory, per object."""

    value: Float[Array, "b k h w c"]
    summaries: Float[Array, "b k q s"]


class DecodedMask(NamedTuple):
    """Per-object logits at stride 4, and the decoder's input to the sensory memory."""

    logits: Float[Array, "b k h4 w4"]
    sensory_input: Float[Array, "b k h w c"]


class Segmentation(NamedTuple):
    """Result for one frame.

    prob, logits: background first, at the frame's size, float32.
    """

    prob: Float[Array, "b n H W"]
    logits: Float[Array, "b n H W"]
    decoded: DecodedMask
    transformed: TransformerOutput


class S3(nn.Module):
    """The network of a `ModelConfig`, computing in `dtype` (docs/network.md, section 1).

    trainable_blocks: parts of a pretrained image encoder that training changes (`Encoder.frozen`);
      they do not affect the network's results.
    axis_name: mapped axis over which BatchNorm statistics are averaged in training.
    products: type that `Network` rounds the operands of products to; None leaves them.

    Images are RGB in [0, 1], (b, H, W, 3), with H and W multiples of `config.size_multiple`.
    `chunk_size` bounds how many objects are processed at a time and never changes a result.
    """

    config: ModelConfig
    trainable_blocks: tuple[int, ...] = ()
    axis_name: Axes | None = None
    dtype: Dtype = jnp.float32
    products: Dtype | None = None

    def setup(self) -> None:
        config, dtype = self.config, self.dtype
        self.image_encoder = make_encoder(config, self.axis_name, dtype)
        self.pix_feat_proj = Linear(config.width, dtype=dtype)
        self.key_projection = KeyProjection(config.width, config.key_dim)
        self.mask_encoder = MaskEncoder(config.width, config.single_object, dtype,
                                        config.mask_encoder_width)  # fmt: skip
        self.deep_update = GatedUpdate()
        self.object_summarizer = ObjectSummarizer(config.width, config.num_queries)
        self.pixel_fuser = PixelFuser(config.width, config.single_object, dtype)
        self.object_transformer = ObjectTransformer(config, dtype)
        self.mask_decoder = MaskDecoder(config.width, config.decoder_dims, dtype)
        self.auxiliary = AuxiliaryHeads()

    def segment(
        self,
        features: ImageFeatures,
        readout: Float[Array, "b k h w c"],
        sensory: Float[Array, "b k h w c"],
        last_mask: Float[Array, "b k H W"],
        object_value: Float[Array, "b k q c"],
        active: Float[Array, "b k"] | None = None,
        same_bucket: Float[Array, "k k"] | None = None,
        chunk_size: int = -1,
    ) -> Segmentation:
        """Segment one frame, given the memory of its objects.

        Args:
          features: features of the frame, from `encode_image`.
          readout: values read from every object's memory at this frame's pixels
            (`s3_jax.memory.read`).
          sensory: sensory memory.
          last_mask: soft masks of the previous frame, at the frame's size.
          object_value: averaged object memory (`s3_jax.memory.object_memory`).
          active: 0 for padding objects.
          same_bucket: 1 where two objects appeared in the same frame.
          chunk_size: number of objects processed at a time; -1 for all.
        """
        pixel = self.fuse_pixels(
            features.pix_feat, readout, sensory, last_mask, same_bucket, chunk_size
        )
        transformed = self.transform_objects(pixel, object_value, active, same_bucket, chunk_size)
        decoded = self.decode_mask(features, transformed.pixel, sensory, chunk_size)
        prob, logits = self.finish(decoded.logits, active)
        return Segmentation(prob, logits, decoded, transformed)

    def encode_image(self, image: Float[Array, "b H W 3"], train: bool = False) -> ImageFeatures:
        """Return feature maps, pixel feature, and key; `train` is passed to the image encoder."""
        f16, f8, f4, project4 = self.image_encoder(image, train)
        skip4 = self.mask_decoder.skip4
        return ImageFeatures(
            f16=f16,
            f8=f8,
            f4=f4,
            skip8=self.mask_decoder.skip8(f8),
            skip4=skip4(f4) if project4 is None else project4(skip4),
            pix_feat=self.pix_feat_proj(f16),
            key=self.key_projection(f16),
        )

    def fuse_pixels(
        self,
        pix_feat: Float[Array, "b h w c"],
        readout: Float[Array, "b k h w c"],
        sensory: Float[Array, "b k h w c"],
        last_mask: Float[Array, "b k H W"],
        same_bucket: Float[Array, "k k"] | None = None,
        chunk_size: int = -1,
    ) -> Float[Array, "b k h w c"]:
        """Fuse pixel feature, memory readout, sensory memory and last mask into one map per object.

        See docs/network.md, section 4.3.
        """
        small = resize_masks(last_mask, (pix_feat.shape[1], pix_feat.shape[2]))
        return map_objects(
            self,
            lambda module, *args: module.pixel_fuser(pix_feat, *args),
            chunk_size,
            readout,
            sensory,
            small,
            others(small, same_bucket),
        )

    def transform_objects(
        self,
        pixel: Float[Array, "b k h w c"],
        object_value: Float[Array, "b k q c"],
        active: Float[Array, "b k"] | None = None,
        same_bucket: Float[Array, "k k"] | None = None,
        chunk_size: int = -1,
    ) -> TransformerOutput:
        """Run the object transformer on pixels, and on queries made from the object memory.

        See docs/network.md, section 6.
        """
        return self.object_transformer(pixel, object_value, active, same_bucket, chunk_size)

    def decode_mask(
        self,
        features: ImageFeatures,
        pixel: Float[Array, "b k h w c"],
        sensory: Float[Array, "b k h w c"],
        chunk_size: int = -1,
    ) -> DecodedMask:
        """Decode pixel maps to logits at stride 4, each object separately."""

        def decode(module: "S3", pixel: Array) -> DecodedMask:
            """Decode a chunk of the objects."""
            logits, map8, map4 = module.mask_decoder(pixel, features.skip8, features.skip4)
            return DecodedMask(logits, module.mask_decoder.sensory_input(pixel, map8, map4, logits))

        return map_objects(self, decode, chunk_size, pixel)

    def finish(
        self, logits: Float[Array, "b k h4 w4"], active: Float[Array, "b k"] | None = None
    ) -> tuple[Float[Array, "b k+1 H W"], Float[Array, "b k+1 H W"]]:
        """Return probabilities and logits at the frame's size, background first, float32.

        See docs/network.md, section 7.3.
        """
        prob = nn.sigmoid(logits)
        if active is not None:
            prob = prob * active[:, :, None, None]
        size = (4 * logits.shape[2], 4 * logits.shape[3])
        full = resize_masks(aggregate(prob), size, "bilinear")
        return softmax_over_objects(full), full

    def encode_mask(
        self,
        image: Float[Array, "b H W 3"],
        pix_feat: Float[Array, "b h w c"],
        masks: Float[Array, "b k H W"],
        chunk_size: int = -1,
    ) -> EncodedMask:
        """Return value and object summaries of a memory frame; `masks` are soft."""
        image = normalize(image)

        def encode(module: "S3", masks: Array, other_masks: Array) -> EncodedMask:
            """Encode a chunk of the objects."""
            value = module.mask_encoder(image, pix_feat, masks, other_masks)
            summaries, _ = module.object_summarizer(value, masks)
            return EncodedMask(value, summaries)

        return map_objects(self, encode, chunk_size, masks, others(masks))

    def update_sensory_deep(
        self, sensory: Float[Array, "b k h w c"], value: Float[Array, "b k h w c"],
        chunk_size: int = -1,
    ) -> Float[Array, "b k h w c"]:  # fmt: skip
        """Return the sensory memory after a memory frame (deep update)."""
        update = lambda module, v, s: module.deep_update(v, s)  # noqa: E731
        return map_objects(self, update, chunk_size, value, sensory)

    def update_sensory(
        self,
        sensory: Float[Array, "b k h w c"],
        sensory_input: Float[Array, "b k h w c"],
        chunk_size: int = -1,
    ) -> Float[Array, "b k h w c"]:
        """Return the sensory memory after decoding a frame."""
        update = lambda module, v, s: module.mask_decoder.gated_update(v, s)  # noqa: E731
        return map_objects(self, update, chunk_size, sensory_input, sensory)

    def predict_auxiliary(
        self,
        pix_feat: Float[Array, "b h w c"],
        sensory: Float[Array, "b k h w c"],
        query_logits: Float[Array, "b k l h w"],
        active: Float[Array, "b k"] | None = None,
    ) -> tuple[Float[Array, "b k+1 h w"], Float[Array, "b k+1 l h w"]]:
        """Return auxiliary logits that training supervises, from sensory memory and queries."""
        return self.auxiliary(pix_feat, sensory, query_logits, active)

    def __call__(self, image: Float[Array, "b H W 3"], masks: Float[Array, "b k H W"]) -> Array:
        """Encode a memory frame and segment it again, which uses every parameter (for `init`)."""
        features = self.encode_image(image)
        encoded = self.encode_mask(image, features.pix_feat, masks)
        sensory = jnp.zeros(encoded.value.shape, jnp.float32)
        sensory = self.update_sensory_deep(sensory, encoded.value)
        result = self.segment(features, encoded.value, sensory, masks, encoded.summaries[..., :-1])
        sensory = self.update_sensory(sensory, result.decoded.sensory_input)
        self.predict_auxiliary(features.pix_feat, sensory, result.transformed.logits)
        return result.prob
