"""Multi-head attention with PyTorch's packed parameters."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from s3_jax.models.layers import Dtype, Initializer, fan_in_uniform
from s3_jax.ops.attention import attend, attend_few_keys


class MultiHeadAttention(nn.Module):
    """Multi-head attention with packed input projections in the order query, key, value.

    With few keys (object queries, the two semantic tokens), the projections of queries and output
    are folded onto the keys and values. This computes the same sums in another order, with a
    fraction of the multiplications.
    """

    num_heads: int
    out_kernel_init: Initializer | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "b m c"],
        key: Float[Array, "b n c"],
        value: Float[Array, "b n c"],
        blocked: Bool[Array, "b #n_heads m n"] | None = None,
    ) -> Float[Array, "b m c"]:
        c = query.shape[-1]
        xavier = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
        kernel = self.param("in_kernel", xavier, (c, 3 * c)).astype(self.dtype)
        bias = self.param("in_bias", nn.initializers.zeros, (3 * c,)).astype(self.dtype)
        out_init = self.out_kernel_init or fan_in_uniform(c)
        out_kernel = self.param("out_kernel", out_init, (c, c)).astype(self.dtype)
        out_bias = self.param("out_bias", nn.initializers.zeros, (c,)).astype(self.dtype)
        query, key, value = (x.astype(self.dtype) for x in (query, key, value))
        split = functools.partial(_split_heads, num_heads=self.num_heads)
        keys = split(key @ kernel[:, c : 2 * c] + bias[None, None, c : 2 * c])
        values = split(value @ kernel[:, 2 * c :] + bias[None, None, 2 * c :])
        if blocked is None and key.shape[1] * self.num_heads < c:
            return attend_few_keys(
                query, keys, values, kernel[:, :c], bias[:c], out_kernel, out_bias
            )
        queries = split(query @ kernel[:, :c] + bias[None, None, :c])
        if self.is_mutable_collection("intermediates") and blocked is not None:
            score = jnp.einsum("bmhd,bnhd->bhmn", queries, keys).astype(jnp.float32)
            self.sow("intermediates", "similarity", jnp.where(blocked, -jnp.inf, score))
        mixed = attend(queries, keys, values, blocked).reshape(query.shape)
        return mixed @ out_kernel + out_bias[None, None]


def _split_heads(x: Array, num_heads: int) -> Array:
    return x.reshape(*x.shape[:-1], num_heads, x.shape[-1] // num_heads)
