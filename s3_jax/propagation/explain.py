"""Attention of the object queries in a frame, block by block of the object transformer.

S3's masked cross attention is a hard choice (paper section 3.3): a query reads only the most
similar pixel. Foreground queries choose among the pixels that the previous mask head assigned to
the object, background queries among the others. Other attentions may blend pixels. For them only
the similarity is shown, if they offer one (`s3_jax.models.object_attention`).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from s3_jax.config import PropagationConfig
from s3_jax.models.object_attention import offered_similarity
from s3_jax.models.s3 import S3
from s3_jax.propagation.frame import Network, Variables, WatchedNetwork
from s3_jax.propagation.geometry import FrameGeometry, prepare_image
from s3_jax.propagation.state import STRIDE, VideoState
from s3_jax.propagation.step import encode, segment_next


class Explanation(NamedTuple):
    """Queries and attention of l blocks, k objects, q queries and th x tw tokens at stride 16.

    queries: object queries after each block.
    readable: tokens that foreground queries may read, then tokens that background queries may read.
    similarity: for every query and token in every head, -inf where the query may not read; None if
      the network's attention does not offer it.
    row, column: centre, in pixels of the frame, of the token that is most similar to a query in a
      head; the axis of heads is empty if there is no similarity.
    """

    queries: Float[np.ndarray, "l k q c"]
    readable: Bool[np.ndarray, "l k 2 th tw"]
    similarity: Float[np.ndarray, "l k heads q th tw"] | None
    row: Float[np.ndarray, "l k heads q"]
    column: Float[np.ndarray, "l k heads q"]

    def of(self, slots: Sequence[int]) -> "Explanation":
        """Return the explanation of the objects in these slots, in this order."""
        chosen = list(slots)
        similarity = None if self.similarity is None else self.similarity[:, chosen]
        parts = {name: x[:, chosen] for name, x in self._asdict().items() if x is not None}
        return Explanation(**parts | {"similarity": similarity})


def explain(
    network: Network,
    config: PropagationConfig,
    geometry: FrameGeometry,
    state: VideoState,
    image: UInt8[np.ndarray, "h w 3"],
) -> Explanation:
    """Return what the queries of every slot would read in a frame, without remembering it.

    Args:
      state: memory after the frames before it, with the objects annotated.
      image: RGB, uint8.
    """
    found = _look(network.model, config, geometry, network.variables, state, image)
    queries, blocked, similarity = jax.device_get(found)
    h, w = (length // STRIDE for length in geometry.padded)
    if similarity is None:
        chosen = np.zeros((*queries.shape[:2], 0, queries.shape[2]), int)
    else:
        chosen = similarity.argmax(axis=-1)
        similarity = similarity.reshape(*similarity.shape[:-1], h, w)
    row, column = np.divmod(chosen, w)
    top, _, left, _ = geometry.padding
    inner, original = geometry.inner, geometry.original
    return Explanation(
        queries=queries,
        readable=~blocked.reshape(*blocked.shape[:3], h, w),
        similarity=similarity,
        row=_frame_position(row, top, inner[0], original[0]),
        column=_frame_position(column, left, inner[1], original[1]),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _look(
    model: S3,
    config: PropagationConfig,
    geometry: FrameGeometry,
    variables: Variables,
    state: VideoState,
    image: UInt8[Array, "h w 3"],
) -> tuple[Float[Array, "l k q c"], Bool[Array, "l k 2 n"], Float[Array, "l k heads q n"] | None]:
    """Return each block's queries, the tokens that they may not read, and the similarity."""
    network = WatchedNetwork(model, variables)
    config = dataclasses.replace(config, chunk_size=-1)  # so that sown arrays hold all objects
    encoded = encode(network, config, prepare_image(image, geometry))
    segment_next(network, config, state, encoded.features)
    transformer = network.seen["object_transformer"]
    blocks = [transformer.get(f"blocks_{i}", {}) for i in range(model.config.num_blocks)]
    offered: list[Any] = [offered_similarity(block) for block in blocks]
    count = state.bucket_of.shape[0]
    return (
        jnp.stack([queries[0] for queries in transformer["queries"]]),
        jnp.stack([blocked[0] for blocked in transformer["blocked"]]),
        None if offered[0] is None else jnp.stack([x[:count] for x in offered]),
    )


def _frame_position(
    token: Int[np.ndarray, "l k heads q"], padding: int, inner: int, original: int
) -> Float[np.ndarray, "l k heads q"]:
    """Convert token indices to pixels of the frame; tokens in the padding lie at its edge."""
    inside = np.clip(STRIDE * token + (STRIDE - 1) / 2 - padding, 0, inner - 1)
    return (inside + 0.5) * (original / inner) - 0.5
