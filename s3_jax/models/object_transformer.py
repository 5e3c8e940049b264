"""Object transformer: object queries and pixels read each other (docs/network.md, section 6).

Masked cross attention (`object_attention`) makes S3's queries discriminative. In every head a query
reads only the pixel most similar to it, rather than a blend of many. Foreground queries choose
among foreground pixels, background queries among background pixels.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from s3_jax.config import ModelConfig
from s3_jax.models.attention import MultiHeadAttention
from s3_jax.models.chunks import map_objects
from s3_jax.models.layers import ChannelAttentionBlock, Dtype, LayerNorm, Linear
from s3_jax.models.masks import foreground
from s3_jax.models.object_attention import make_query_attention
from s3_jax.models.positional import sinusoidal_encoding
from s3_jax.ops.precision import wide_type

normal = nn.initializers.normal(1.0)


class TransformerOutput(NamedTuple):
    """Result of the object transformer.

    pixel: map after the last block.
    logits: one mask per level, the one before block 0 first.
    """

    pixel: Float[Array, "b k h w c"]
    logits: Float[Array, "b k l h w"]


class QuerySelfAttention(nn.Module):
    """Self-attention among one object's queries; the residual is the normalized input."""

    num_heads: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, query: Float[Array, "b q c"], query_pos: Float[Array, "b q c"]
    ) -> Float[Array, "b q c"]:
        query = LayerNorm(dtype=self.dtype, name="norm")(query)
        attention = MultiHeadAttention(self.num_heads, dtype=self.dtype, name="attend")
        return query + attention(query + query_pos, query + query_pos, query)


class FeedForward(nn.Module):
    """Pre-norm two-layer perceptron with residual."""

    hidden: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b q c"]) -> Float[Array, "b q c"]:
        y = LayerNorm(dtype=self.dtype, name="norm")(x)
        y = nn.relu(Linear(self.hidden, dtype=self.dtype, name="fc1")(y))
        return x + Linear(x.shape[-1], dtype=self.dtype, name="fc2")(y)


class ObjectTransformerBlock(nn.Module):
    """One block: queries read pixels, then each other, and pixels read queries.

    Objects are folded into the batch.
    """

    config: ModelConfig
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "b q c"],
        query_pos: Float[Array, "b q c"],
        pixel: Float[Array, "b h w c"],
        pixel_pos: Float[Array, "b h w c"],
        blocked: Bool[Array, "b q n"],
    ) -> tuple[Float[Array, "b q c"], Float[Array, "b h w c"]]:
        config = self.config
        shape = pixel.shape
        flat, flat_pos = (x.reshape(shape[0], -1, shape[-1]) for x in (pixel, pixel_pos))
        read_from_pixel = make_query_attention(config, self.dtype, name="read_from_pixel")
        confer = QuerySelfAttention(config.num_heads, self.dtype, name="self_attention")
        query = read_from_pixel(query, query_pos, flat, flat_pos, blocked[:, None])
        query = confer(query, query_pos)
        query = FeedForward(config.ff_dim, self.dtype, name="feed_forward")(query)
        read_from_query = MultiHeadAttention(
            config.num_heads, dtype=self.dtype, name="read_from_query"
        )
        flat = flat + read_from_query(flat + flat_pos, query + query_pos, query)
        pixel = ChannelAttentionBlock(shape[-1], self.dtype, name="pixel_feed_forward")(
            flat.reshape(shape)
        )
        return query, pixel


class ObjectTransformer(nn.Module):
    """Blocks of the object transformer, with a mask head before the first and after each."""

    config: ModelConfig
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        config = self.config
        shape = (config.num_queries, config.width)
        self.query_init = self.param("query_init", normal, shape)
        self.query_emb = self.param("query_emb", normal, shape)
        self.summary_to_init = Linear(config.width, dtype=self.dtype)
        self.summary_to_emb = Linear(config.width, dtype=self.dtype)
        self.pixel_init = Linear(config.width, dtype=self.dtype)
        self.pixel_emb = Linear(config.width, dtype=self.dtype)
        self.blocks = [ObjectTransformerBlock(config, self.dtype) for _ in range(config.num_blocks)]
        wide = wide_type(self.dtype)
        self.mask_heads = [Linear(1, dtype=wide) for _ in range(config.num_blocks + 1)]

    def __call__(
        self,
        pixel: Float[Array, "b k h w c"],
        object_value: Float[Array, "b k q c"],
        active: Float[Array, "b k"] | None = None,
        same_bucket: Float[Array, "k k"] | None = None,
        chunk_size: int = -1,
    ) -> TransformerOutput:
        """Run all blocks.

        Args:
          pixel: fused pixel features.
          object_value: averaged object memory (docs/network.md, section 5).
          active: 0 for padding objects.
          same_bucket: 1 where two objects share a bucket.
          chunk_size: objects a block processes at a time; masks are compared over all objects.
        """
        query, query_pos, pixel, pixel_pos = map_objects(
            self, ObjectTransformer._embed, chunk_size, object_value, pixel
        )
        logits = [self._mask_logits(0, pixel)]
        for i in range(self.config.num_blocks):
            blocked = self._blocked(logits[-1], active, same_bucket)
            query, pixel = map_objects(
                self,
                lambda module, *args, i=i: module._run_block(i, *args),
                chunk_size,
                query,
                query_pos,
                pixel,
                pixel_pos,
                blocked,
            )
            self.sow("intermediates", "queries", query)
            logits.append(self._mask_logits(i + 1, pixel))
        return TransformerOutput(pixel, jnp.stack(logits, axis=2))

    def _embed(self, object_value: Array, pixel: Array) -> tuple[Array, ...]:
        """Return queries and pixels with their position terms."""
        object_value = object_value.astype(self.dtype)
        init, emb = (x.astype(self.dtype)[None, None] for x in (self.query_init, self.query_emb))
        query = init + self.summary_to_init(object_value)
        query_pos = emb + self.summary_to_emb(object_value)
        h, w, c = pixel.shape[2:]
        spatial = jnp.asarray(sinusoidal_encoding(h, w, c), self.dtype)
        return (
            query,
            query_pos,
            self.pixel_init(pixel),
            self.pixel_emb(pixel) + spatial[None, None],
        )

    def _run_block(self, i: int, *args: Array) -> tuple[Array, Array]:
        """Run block i with objects folded into the batch."""
        b, k = args[0].shape[:2]
        query, pixel = self.blocks[i](*(x.reshape(b * k, *x.shape[2:]) for x in args))
        return query.reshape(b, k, *query.shape[1:]), pixel.reshape(b, k, *pixel.shape[1:])

    def _mask_logits(self, level: int, pixel: Array) -> Float[Array, "b k h w"]:
        return self.mask_heads[level](nn.relu(pixel))[..., 0]

    def _blocked(
        self, logits: Array, active: Array | None, same_bucket: Array | None
    ) -> Bool[Array, "b k q n"]:
        """Return the attention mask: True for pixels that a query may not read."""
        pair = blocked_pixels(logits, active, same_bucket)
        self.sow("intermediates", "blocked", pair)
        b, k, _, n = pair.shape
        half = self.config.num_queries // 2
        return jnp.broadcast_to(pair[:, :, :, None], (b, k, 2, half, n)).reshape(b, k, -1, n)


def blocked_pixels(
    logits: Float[Array, "b k h w"],
    active: Float[Array, "b k"] | None = None,
    same_bucket: Float[Array, "k k"] | None = None,
) -> Bool[Array, "b k 2 n"]:
    """Return True for pixels that an object's foreground and background queries may not read.

    Queries that would have no pixel left may read all pixels (docs/network.md, section 6.1).
    """
    prob = nn.sigmoid(logits)
    if active is not None:
        prob = prob * active[:, :, None, None]
    inside = jax.lax.stop_gradient(foreground(prob, same_bucket))
    inside = inside.reshape(*inside.shape[:2], 1, -1)
    blocked = jnp.concatenate([~inside, inside], axis=2)
    return blocked & ~jnp.all(blocked, axis=-1, keepdims=True)
