"""Number of tokens in a memory, counted as in the recordings."""

import jax.numpy as jnp
from jaxtyping import Array, Int

from s3_jax.memory.state import KeyValueMemory, held_temporary_frames


def memory_sizes(memory: KeyValueMemory) -> Int[Array, "u 3"]:
    """Return token counts per bucket: working memory, its permanent part, long-term memory."""
    frame = memory.layout.tokens_per_frame
    permanent = memory.permanent_frames * frame
    working = permanent + held_temporary_frames(memory) * frame
    return jnp.stack([working, permanent, memory.long_term_tokens], axis=1)
