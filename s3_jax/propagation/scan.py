"""Many frames in one program: `step` under `lax.scan`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from s3_jax.config import PropagationConfig
from s3_jax.models.s3 import S3
from s3_jax.propagation.frame import Network
from s3_jax.propagation.geometry import FrameGeometry, prepare_image
from s3_jax.propagation.state import VideoState
from s3_jax.propagation.step import Encoded, step_encoded, with_mirror_image


def scan(
    network: Network,
    config: PropagationConfig,
    geometry: FrameGeometry,
    state: VideoState,
    frames: UInt8[Array, "t h w 3"],
    last: bool = False,
    encode_at_once: int = 1,
    remat: bool = False,
) -> tuple[VideoState, Float[Array, "t n H W"]]:
    """Segment frames one after the other; results and derivatives are those of `step` on each.

    Args:
      state: memory after the frames before these, with all objects annotated.
      frames: RGB, at the video's own size.
      last: True if the last of these frames is the last of the video.
      encode_at_once: number of frames that pass through the image encoder together, which does not
        depend on masks. More frames make larger matrix products and hold more features in memory.
        Results change only by rounding.
      remat: keep only the state between frames, and recompute each frame in the backward pass; for
        gradients through many frames. Results do not change.

    Returns:
      The state after the last frame, and probabilities at the padded size.

    Raises:
      ValueError: encode_at_once is less than 1.
    """
    if encode_at_once < 1:
        raise ValueError(f"encode_at_once is {encode_at_once}, but must be at least 1")
    count = frames.shape[0]
    rest = count % encode_at_once
    end = jnp.arange(count) == (count - 1 if last else -1)
    # XLA cannot merge the forward and the recomputed part across a scan, so we need not prevent it.
    checkpoint = functools.partial(jax.checkpoint, prevent_cse=False) if remat else lambda f: f

    def step(state: VideoState, inputs: tuple[Any, ...]) -> tuple[VideoState, Array]:
        """Run the part of a frame's step that follows the image encoder."""
        encoded, end = inputs
        return step_encoded(network, config, state, encoded, end)

    def together(state: VideoState, inputs: tuple[Array, ...]) -> tuple[VideoState, Array]:
        """Encode some frames together, then run their steps one after the other."""
        frames, end = inputs
        images = jax.vmap(functools.partial(_images, config, geometry))(frames)
        features = network(S3.encode_image, images.reshape(-1, *images.shape[2:]))
        features = jax.tree.map(lambda x: x.reshape(*images.shape[:2], *x.shape[1:]), features)
        one = checkpoint(step) if encode_at_once > 1 else step
        return jax.lax.scan(one, state, (Encoded(images, features), end))

    def run(state: VideoState, chosen: slice, size: int) -> tuple[VideoState, Array]:
        """Process the chosen frames, `size` of them encoded together."""
        chunks = (x[chosen].reshape(-1, size, *x.shape[1:]) for x in (frames, end))
        state, prob = jax.lax.scan(checkpoint(together), state, tuple(chunks))
        return state, prob.reshape(-1, *prob.shape[2:])

    state, prob = run(state, slice(count - rest), encode_at_once)
    if rest:
        state, more = run(state, slice(count - rest, count), rest)
        prob = jnp.concatenate([prob, more])
    return state, prob


def _images(
    config: PropagationConfig, geometry: FrameGeometry, frame: UInt8[Array, "h w 3"]
) -> Float[Array, "b H W 3"]:
    """Return the images to encode for a frame."""
    return with_mirror_image(prepare_image(frame, geometry), config)
