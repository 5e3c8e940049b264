"""Many frames in one program: `propagate_frame` under `lax.scan`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from s3_jax.config import PropagationConfig
from s3_jax.propagation.geometry import FrameGeometry, prepare_image
from s3_jax.propagation.state import VideoState
from s3_jax.propagation.step import Network, propagate_frame


def propagate_frames(
    network: Network,
    config: PropagationConfig,
    geometry: FrameGeometry,
    state: VideoState,
    frames: UInt8[Array, "t h w 3"],
    last: bool = False,
) -> tuple[VideoState, Float[Array, "t n H W"]]:
    """Segments frames one after the other; the same as calling `propagate_frame` for each.

    Args:
      state: after the frames before these; its objects have been annotated.
      frames: RGB, at the video's own size.
      last: the last of these frames is the last of the video.

    Returns:
      The state after the last frame, and probabilities at the padded size.
    """
    count = frames.shape[0]
    end = jnp.arange(count) == (count - 1 if last else -1)

    def step(state: VideoState, inputs: tuple[Array, Array]) -> tuple[VideoState, Array]:
        frame, end = inputs
        return propagate_frame(network, config, state, prepare_image(frame, geometry), end)

    return jax.lax.scan(step, state, (frames, end))
