"""Multi-head attention of projected queries, keys and values.

The form depends on the shapes and the backend. On a TPU, scores for many keys are computed for one
batch item at a time and, in large frames, for a few heads at a time, so that they stay in the
chip's fast memory. Otherwise all scores would be written to main memory and read back twice.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from s3_jax.ops.backend import backend
from s3_jax.ops.precision import wide_type, widen
from s3_jax.ops.products import product, product_with_rows

# Minimum number of keys for which keeping scores in cache or fast memory saves time.
MANY_KEYS = 256
# CPUs multiply fastest where the number of keys and of values' channels is a multiple of this.
LANES = 16
# Number of float32 scores that fit in a TPU's fast memory (mostly 128 MiB) with everything else.
SCORES_AT_ONCE = 12 * 2**20


def attend(
    query: Float[Array, "b m n_heads d"],
    key: Float[Array, "b n n_heads d"],
    value: Float[Array, "b n n_heads d"],
    blocked: Bool[Array, "b #n_heads m n"] | None = None,
) -> Float[Array, "b m n_heads d"]:
    """Return softmax(q k / sqrt(d)) v per head, with the softmax in float32.

    Args:
      blocked: True for query-key pairs that get no weight; size 1 on the head axis broadcasts.
    """
    query = query * query.shape[-1] ** -0.5
    if blocked is None and key.shape[1] >= MANY_KEYS:
        if backend() == "cpu":
            return _attend_head_by_head(query, key, value)
        if backend() == "tpu":
            return _attend_part_by_part(query, key, value)
    score = widen(jnp.einsum("bmhd,bnhd->bhmn", query, key))
    if blocked is not None:
        score = jnp.where(blocked, -jnp.inf, score)
    weight = jax.nn.softmax(score, axis=-1).astype(value.dtype)
    return jnp.einsum("bhmn,bnhd->bmhd", weight, value)


def _attend_part_by_part(query: Array, key: Array, value: Array) -> Array:
    """Attend for one batch item and as many heads as fit at a time; scores are not rounded."""
    b, m, heads, d = query.shape
    fitting = SCORES_AT_ONCE // (m * key.shape[1])
    together = max(n for n in range(1, heads + 1) if heads % n == 0 and n <= max(fitting, 1))

    def parts(x: Array) -> Array:
        """Split items and groups of heads into parts along the first axis."""
        x = x.reshape(b, -1, heads // together, together, d)
        return jnp.moveaxis(x, 2, 1).reshape(-1, x.shape[1], together, d)

    def one_part(qkv: tuple[Array, Array, Array]) -> Array:
        """Attend for one group of heads of one item."""
        q, k, v = qkv
        score = jnp.einsum("mhd,nhd->hmn", q, k, preferred_element_type=wide_type(q.dtype))
        return jnp.einsum("hmn,nhd->mhd", jax.nn.softmax(score, axis=-1).astype(v.dtype), v)

    mixed = jax.lax.map(one_part, (parts(query), parts(key), parts(value)))
    mixed = jnp.moveaxis(mixed.reshape(b, heads // together, m, together, d), 1, 2)
    return mixed.reshape(b, m, heads, d)


def _attend_head_by_head(query: Array, key: Array, value: Array) -> Array:
    """Attend one head at a time and normalize after the value product; scores stay in cache.

    Channels of ones beside the values make their product sum the weights as well. Copies of the
    last key fill up the lanes; their values, ones included, are zeros, so they have no effect.
    """
    b, m, heads, d = query.shape
    copies = -key.shape[1] % LANES

    def one_head(qkv: tuple[Array, Array, Array]) -> Array:
        """Attend for one head of one item."""
        q, k, v = qkv
        ones = jnp.ones((v.shape[0], LANES), v.dtype)
        v_and_ones = jnp.pad(jnp.concatenate([v, ones], 1), ((0, copies), (0, 0)))
        score = widen(product_with_rows(q, jnp.pad(k, ((0, copies), (0, 0)), mode="edge")))
        weight = jnp.exp(score - jax.lax.stop_gradient(jnp.max(score, -1, keepdims=True)))
        mixed = product(weight.astype(v.dtype), v_and_ones)
        return mixed[:, :d] / mixed[:, d : d + 1]

    heads_first = (x.transpose(0, 2, 1, 3).reshape(b * heads, -1, d) for x in (query, key, value))
    out = jax.lax.map(one_head, tuple(heads_first))
    return out.reshape(b, heads, m, d).transpose(0, 2, 1, 3)


def attend_few_keys(
    query: Float[Array, "b m c"],
    keys: Float[Array, "b n n_heads d"],
    values: Float[Array, "b n n_heads d"],
    query_kernel: Float[Array, "c c"],
    query_bias: Float[Array, "c"],
    out_kernel: Float[Array, "c c"],
    out_bias: Float[Array, "c"],
) -> Float[Array, "b m c"]:
    """Return attention with its query and output projections folded onto the n keys and values.

    This is cheaper than projecting queries and output if m is much larger than n.

    Args:
      query: queries before projection; keys and values are already projected.
    """
    b, n, heads, d = keys.shape
    c = heads * d
    keys = keys * d**-0.5
    folded_keys = jnp.einsum("chd,bnhd->bchn", query_kernel.reshape(c, heads, d), keys)
    offset = jnp.einsum("hd,bnhd->bhn", query_bias.reshape(heads, d), keys)
    score = query @ folded_keys.reshape(b, c, heads * n) + offset.reshape(b, 1, heads * n)
    score = widen(score.reshape(b, -1, heads, n))
    weight = jax.nn.softmax(score, axis=-1).astype(query.dtype)
    folded_values = jnp.einsum("bnhd,hdc->bhnc", values, out_kernel.reshape(heads, d, c))
    mixed = weight.reshape(b, -1, heads * n) @ folded_values.reshape(b, heads * n, c)
    return mixed + out_bias[None, None]
