"""Object summaries: mask-weighted sums of value features, one per query.

See docs/network.md, section 3.4.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from s3_jax.models.layers import Linear
from s3_jax.models.positional import sinusoidal_encoding
from s3_jax.ops.precision import widen
from s3_jax.ops.resize import resize_masks


class ObjectSummarizer(nn.Module):
    """Summaries in float32: half of the queries sum over the object, half over the background."""

    width: int
    num_queries: int

    @nn.compact
    def __call__(
        self, value: Float[Array, "b k h w c"], masks: Float[Array, "b k H W"]
    ) -> tuple[Float[Array, "b k q c+1"], Float[Array, "b k h w q"]]:
        """Return sums with their area as last channel, and the logits of the weights.

        masks: soft masks at any size; they are resized to the size of the value.
        """
        h, w = value.shape[2:4]
        inside, value = resize_masks(widen(masks), (h, w))[..., None], widen(value)
        linear = functools.partial(Linear, dtype=value.dtype)
        x = linear(self.width, name="proj")(value)
        x = x + jnp.asarray(sinusoidal_encoding(h, w, self.width))[None, None]
        feature = linear(self.width, name="feature_out")(
            nn.relu(linear(self.width, name="feature_in")(x))
        )
        logits = linear(self.num_queries, name="weight_out")(
            nn.relu(linear(self.width, name="weight_in")(x))
        )
        half = self.num_queries // 2
        weight = nn.sigmoid(logits)
        weight = jnp.concatenate(
            [weight[..., :half] * inside, weight[..., half:] * (1 - inside)], axis=-1
        )
        sums = jnp.einsum("bkhwq,bkhwc->bkqc", weight, feature, precision="highest")
        area = jnp.sum(weight, axis=(2, 3))[..., None]
        return jnp.concatenate([sums, area], axis=-1), logits
