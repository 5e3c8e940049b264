"""Multi-head attention with PyTorch's packed parameters, in the form cheapest for its shape."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from s3_jax.backend import backend
from s3_jax.models.layers import Dtype, Initializer, fan_in_uniform


def attend(
    query: Float[Array, "b m n_heads d"],
    key: Float[Array, "b n n_heads d"],
    value: Float[Array, "b n n_heads d"],
    blocked: Bool[Array, "b #n_heads m n"] | None = None,
) -> Float[Array, "b m n_heads d"]:
    """softmax(q k / sqrt(d)) v per head; `blocked` pairs get no weight. Softmax in float32.

    A mask for all heads alike has a head axis of size 1.
    """
    scale = query.shape[-1] ** -0.5
    if blocked is None and backend() == "cpu" and key.shape[1] >= 256:
        return _attend_head_by_head(query * scale, key, value)
    score = jnp.einsum("bmhd,bnhd->bhmn", query * scale, key).astype(jnp.float32)
    if blocked is not None:
        score = jnp.where(blocked, -jnp.inf, score)
    weight = jax.nn.softmax(score, axis=-1).astype(value.dtype)
    return jnp.einsum("bhmn,bnhd->bmhd", weight, value)


def _attend_head_by_head(query: Array, key: Array, value: Array) -> Array:
    """One head at a time, normalised after the value product: the scores stay in cache."""
    b, m, heads, d = query.shape

    def one_head(qkv: tuple[Array, Array, Array]) -> Array:
        q, k, v = qkv
        score = (q @ k.T).astype(jnp.float32)
        weight = jnp.exp(score - jax.lax.stop_gradient(jnp.max(score, -1, keepdims=True)))
        total = jnp.sum(weight, -1, keepdims=True)
        return ((weight.astype(v.dtype) @ v) / total.astype(v.dtype)).astype(v.dtype)

    heads_first = (x.transpose(0, 2, 1, 3).reshape(b * heads, -1, d) for x in (query, key, value))
    out = jax.lax.map(one_head, tuple(heads_first))
    return out.reshape(b, heads, m, d).transpose(0, 2, 1, 3)


class MultiHeadAttention(nn.Module):
    """Attention with packed input projections in the order query, key, value.

    When there are few keys (object queries, the two semantic tokens), the projections of the many
    query tokens are folded onto the keys and values instead: the same sums in another order, with
    a fraction of the multiplications.
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
            return _attend_few_keys(
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


def _attend_few_keys(
    query: Float[Array, "b m c"],
    keys: Float[Array, "b n n_heads d"],
    values: Float[Array, "b n n_heads d"],
    query_kernel: Float[Array, "c c"],
    query_bias: Float[Array, "c"],
    out_kernel: Float[Array, "c c"],
    out_bias: Float[Array, "c"],
) -> Float[Array, "b m c"]:
    """Attention whose query and output projections are folded onto the n keys and values."""
    b, n, heads, d = keys.shape
    c = heads * d
    keys = keys * d**-0.5
    folded_keys = jnp.einsum("chd,bnhd->bchn", query_kernel.reshape(c, heads, d), keys)
    offset = jnp.einsum("hd,bnhd->bhn", query_bias.reshape(heads, d), keys)
    score = query @ folded_keys.reshape(b, c, heads * n) + offset.reshape(b, 1, heads * n)
    score = score.reshape(b, -1, heads, n).astype(jnp.float32)
    weight = jax.nn.softmax(score, axis=-1).astype(query.dtype)
    folded_values = jnp.einsum("bnhd,hdc->bhnc", values, out_kernel.reshape(heads, d, c))
    mixed = weight.reshape(b, -1, heads * n) @ folded_values.reshape(b, heads * n, c)
    return mixed + out_bias[None, None]
