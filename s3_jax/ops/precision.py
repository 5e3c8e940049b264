"""Number types for computations that bfloat16 is too coarse for: float32 or wider."""

import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float


def wide_type(dtype: DTypeLike) -> jnp.dtype:
    """Return float32, or float64 for float64 (with `jax_enable_x64`)."""
    return jnp.promote_types(dtype, jnp.float32)


def widen(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x in its `wide_type`."""
    return x.astype(wide_type(x.dtype))
