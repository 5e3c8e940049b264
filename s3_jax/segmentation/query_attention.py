"""What the object queries look at: the pixel that each query and head picks, block by block.

S3's masked cross attention is a hard choice (paper section 3.3), so this is all that a query takes
in: foreground queries choose among the pixels that the mask head of the block before took for the
object, background queries among the others. The queries of the ancestor Cutie blend all pixels
that they may read; for these it is the pixel with the largest weight.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from s3_jax.config import PropagationConfig
from s3_jax.media.query_pictures import QueryChoices
from s3_jax.memory.object_memory import object_values
from s3_jax.models.s3 import S3
from s3_jax.propagation.frame import Network, Variables
from s3_jax.propagation.geometry import FrameGeometry, prepare_image
from s3_jax.propagation.session import Session
from s3_jax.propagation.state import STRIDE, VideoState, remembered, same_bucket
from s3_jax.propagation.step import read_memory


class WatchedSession(Session):
    """A session that tells what its queries would pick in the next frame."""

    def choices(self, image: UInt8[np.ndarray, "h w 3"]) -> QueryChoices:
        """See `query_choices`; objects must have been annotated."""
        assert self.state is not None
        geometry = self._geometry_of(image)
        return query_choices(self._network, self.propagation, geometry, self.state, image)

    def slot(self, object_id: int) -> int:
        """Where an object's choices lie."""
        return self._slots.slot(object_id)


def query_choices(
    network: Network,
    config: PropagationConfig,
    geometry: FrameGeometry,
    state: VideoState,
    image: UInt8[np.ndarray, "h w 3"],
) -> QueryChoices:
    """What the queries would pick in a frame; nothing is remembered of it.

    state: after the frames before it, with the objects annotated; without flip augmentation.
    """
    chosen, inside = _choices(network.model, config, geometry, network.variables, state, image)
    h, w = (length // STRIDE for length in geometry.padded)
    row, column = np.divmod(np.asarray(chosen), w)
    top, _, left, _ = geometry.padding
    inner, original = geometry.inner, geometry.original
    return QueryChoices(
        row=_frame_position(row, top, inner[0], original[0]),
        column=_frame_position(column, left, inner[1], original[1]),
        inside=np.asarray(inside).reshape(*inside.shape[:2], h, w),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _choices(
    model: S3,
    config: PropagationConfig,
    geometry: FrameGeometry,
    variables: Variables,
    state: VideoState,
    image: UInt8[Array, "h w 3"],
) -> tuple[Int[Array, "l k heads q"], Bool[Array, "l k n"]]:
    """Chosen tokens, and tokens inside the object, of every block."""
    network = Network(model, variables)
    features = network(S3.encode_image, prepare_image(image, geometry))
    readout, _ = read_memory(config, state, features.key)
    valid = remembered(state).astype(jnp.float32)[None]
    blended: list[Array] = []
    with nn.intercept_methods(functools.partial(_note_scores, blended)):
        _, captured = model.apply(
            variables, features, readout, state.sensory, state.last_mask,
            object_values(state.object_memory), valid, same_bucket(state),
            method=S3.segment, mutable=["intermediates"],
        )  # fmt: skip
    transformer = captured["intermediates"]["object_transformer"]
    inside = [~blocked[0, :, 0] for blocked in transformer["blocked"]]
    blocks = range(model.config.num_blocks)
    scores = blended or [
        transformer[f"blocks_{i}"]["read_from_pixel"]["similarity"][0] for i in blocks
    ]
    return jnp.argmax(jnp.stack(scores), axis=-1), jnp.stack(inside)


def _note_scores(
    found: list[Array], call: Callable[..., Any], args: Any, kwargs: Any, context: Any
) -> Any:
    """Runs a method; where it is Cutie's reading of pixels by queries, its scores are kept."""
    if context.module.path[-2:] == ("read_from_pixel", "attend"):
        query, key, _, blocked = args
        found.append(_scores(context.module, query, key, blocked))
    return call(*args, **kwargs)


def _scores(
    attention: nn.Module,
    query: Float[Array, "b q c"],
    key: Float[Array, "b n c"],
    blocked: Bool[Array, "b #n_heads q n"],
) -> Float[Array, "b n_heads q n"]:
    """What the softmax of `models.attention` is taken of."""
    c = query.shape[-1]
    params = attention.variables["params"]
    kernel, bias = params["in_kernel"], params["in_bias"][None, None]
    heads = attention.num_heads
    query = (query @ kernel[:, :c] + bias[..., :c]).reshape(*query.shape[:2], heads, -1)
    key = (key @ kernel[:, c : 2 * c] + bias[..., c : 2 * c]).reshape(*key.shape[:2], heads, -1)
    return jnp.where(blocked, -jnp.inf, jnp.einsum("bqhd,bnhd->bhqn", query, key))


def _frame_position(
    token: Int[np.ndarray, "l k heads q"], padding: int, inner: int, original: int
) -> Float[np.ndarray, "l k heads q"]:
    """From a token's index to the frame's pixels; tokens of the padding lie at its edge."""
    inside = np.clip(STRIDE * token + (STRIDE - 1) / 2 - padding, 0, inner - 1)
    return (inside + 0.5) * (original / inner) - 0.5
