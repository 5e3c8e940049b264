"""Attention from object queries to pixels: the interface, and the forms of S3 and Cutie.

An attention is a subclass of `QueryAttention` that maps queries and pixels to new queries. A
configuration names one from outside the package as `package.module:Name` (docs/extend.md has a
complete example).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from s3_jax.config import ModelConfig, load_query_attention
from s3_jax.errors import InputError
from s3_jax.models.attention import MultiHeadAttention
from s3_jax.models.layers import Dtype, LayerNorm, Linear, l2_normalize
from s3_jax.ops.precision import wide_type
from s3_jax.ops.selection import take_tokens

# Name under which an attention may sow scores into "intermediates", for pictures and summaries:
# (b n_heads q n) float32, -inf where blocked. Each head of a query reads the best pixel.
SIMILARITY = "similarity"


class QueryAttention(nn.Module):
    """Base class of the attentions; a subclass need only define `__call__`.

    num_heads: number of heads of the object transformer.
    dtype: type of the computation.
    """

    num_heads: int
    dtype: Dtype = jnp.float32

    def __call__(
        self,
        query: Float[Array, "b q c"],
        query_pos: Float[Array, "b q c"],
        pixel: Float[Array, "b n c"],
        pixel_pos: Float[Array, "b n c"],
        blocked: Bool[Array, "b #n_heads q n"] | None,
    ) -> Float[Array, "b q c"]:
        """Return the queries after reading pixels, residual connection included.

        Objects are folded into the batch. The first half of the queries are foreground queries.

        Args:
          query_pos, pixel_pos: position terms to add where queries and pixels are compared.
          blocked: True for pixels that a query may not read; every query may read at least one.
            None blocks nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define __call__")


def make_query_attention(config: ModelConfig, dtype: Dtype, name: str) -> QueryAttention:
    """Return the attention that a configuration names, as a submodule called `name`.

    Raises:
      InputError: the configuration does not name an attention.
    """
    attention = load_query_attention(config.query_attention)
    if not (isinstance(attention, type) and issubclass(attention, QueryAttention)):
        raise InputError(
            f"query_attention {config.query_attention} is not a subclass of "
            "s3_jax.models.object_attention.QueryAttention"
        )
    return attention(config.num_heads, dtype, name=name)


def offered_similarity(block: Mapping[str, Any]) -> Float[Array, "b n_heads q n"] | None:
    """Return the `SIMILARITY` that a block's attention, or a part of it, sowed; None if none did.

    block: intermediates of an `ObjectTransformerBlock`.
    """
    found = [block.get("read_from_pixel", {})]
    for part in found:
        if SIMILARITY in part:
            return part[SIMILARITY][-1]
        found += [inner for inner in part.values() if isinstance(inner, Mapping)]
    return None


class DiscriminativeCrossAttention(QueryAttention):
    """Masked cross attention for discriminative queries.

    Paper section 3.3; docs/network.md, section 6.2.

    Attention is a hard choice of one token per query and head; gradients flow through the chosen
    token, not through the choice.
    """

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "b q c"],
        query_pos: Float[Array, "b q c"],
        pixel: Float[Array, "b n c"],
        pixel_pos: Float[Array, "b n c"],
        blocked: Bool[Array, "b #n_heads q n"] | None,
    ) -> Float[Array, "b q c"]:
        c = query.shape[-1]
        alpha = self.param("alpha", nn.initializers.ones, (c,)).astype(self.dtype)
        query = LayerNorm(dtype=self.dtype, name="norm")(query)
        key = l2_normalize(query + query_pos)
        token = self._most_similar(key, l2_normalize(pixel + pixel_pos), blocked)
        mixed = Linear(c, dtype=self.dtype, name="proj")(token * key)
        mixed = l2_normalize(mixed, axis=1) * alpha[None, None] + token
        return Linear(c, dtype=self.dtype, name="out")(mixed) + query

    def _most_similar(self, key: Array, feature: Array, blocked: Array | None) -> Array:
        """Return, per head, the feature most similar to each query; on ties, the first."""
        b, n, c = feature.shape
        heads = self.num_heads
        feature = feature.reshape(b, n, heads, c // heads)
        key = key.reshape(b, -1, heads, c // heads)
        similarity = jnp.einsum(
            "bqhd,bnhd->bhqn",
            key,
            feature,
            preferred_element_type=wide_type(key.dtype),
            precision="highest",
        )
        if blocked is not None:
            similarity = jnp.where(blocked, -jnp.inf, similarity)
        self.sow("intermediates", SIMILARITY, similarity)
        chosen = jnp.argmax(similarity, axis=-1).transpose(0, 2, 1)  # b q heads
        return take_tokens(feature, chosen).reshape(b, -1, c)


class MultiHeadCrossAttention(QueryAttention):
    """Cutie's ordinary masked cross attention, instead of S3's discriminative one."""

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "b q c"],
        query_pos: Float[Array, "b q c"],
        pixel: Float[Array, "b n c"],
        pixel_pos: Float[Array, "b n c"],
        blocked: Bool[Array, "b #n_heads q n"] | None,
    ) -> Float[Array, "b q c"]:
        query = LayerNorm(dtype=self.dtype, name="norm")(query)
        attention = MultiHeadAttention(self.num_heads, dtype=self.dtype, name="attend")
        return query + attention(query + query_pos, pixel + pixel_pos, pixel, blocked)
