"""Auxiliary predictions that training supervises (docs/network.md, section 7.4)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from s3_jax.models.layers import Linear
from s3_jax.models.masks import aggregate
from s3_jax.ops.precision import widen


class AuxiliaryHeads(nn.Module):
    """Mask logits from the sensory memory and from the transformer's mask heads."""

    @nn.compact
    def __call__(
        self,
        pix_feat: Float[Array, "b h w c"],
        sensory: Float[Array, "b k h w c"],
        query_logits: Float[Array, "b k l h w"],
        active: Float[Array, "b k"] | None = None,
    ) -> tuple[Float[Array, "b k+1 h w"], Float[Array, "b k+1 l h w"]]:
        """Return aggregated logits, background first, float32; `active` is 0 for padding."""
        channels = pix_feat.shape[-1]
        pix_feat = widen(pix_feat)
        weight = Linear(channels + 1, dtype=pix_feat.dtype, name="sensory_proj")(sensory)
        logits = jnp.einsum("bkhwc,bhwc->bkhw", weight[..., :channels], pix_feat)
        logits = logits + weight[..., channels]
        levels = [logits, *jnp.moveaxis(query_logits, 2, 0)]
        sensory_logits, *query = (_aggregate_active(level, active) for level in levels)
        return sensory_logits, jnp.stack(query, axis=2)


def _aggregate_active(
    logits: Float[Array, "b k h w"], active: Float[Array, "b k"] | None
) -> Float[Array, "b k+1 h w"]:
    prob = nn.sigmoid(logits)
    return aggregate(prob if active is None else prob * active[:, :, None, None])
