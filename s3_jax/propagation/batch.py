"""Several videos at once on one device: the step of a frame under `jax.vmap`.

    batch = SessionBatch(sessions)             # new sessions with equal settings
    results = batch.start(first_images, first_masks)
    for images in zip(*other_frames):
        results = batch.step(images)           # one for each video

The videos run in lockstep: they share one frame size, and all masks are given on the first frame.
Their memory frames therefore coincide, so conditionals stay conditionals under `vmap` instead of
computing both branches. Results equal those of single sessions up to rounding.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError
from s3_jax.models.s3 import S3
from s3_jax.propagation.frame import Network, Variables
from s3_jax.propagation.geometry import FrameGeometry, prepare_image
from s3_jax.propagation.session import FrameResult, Session
from s3_jax.propagation.state import VideoState
from s3_jax.propagation.step import step

# Leaves of a state, because batched arrays do not have the shapes that `VideoState` declares.
Leaves = list[Array]


class SessionBatch:
    """Several sessions that process their videos together.

    sessions: new or reset sessions with equal networks, settings and number types.
    """

    def __init__(self, sessions: Sequence[Session]):
        self._sessions = list(sessions)
        self._leaves: Leaves = []
        self._structure: Any = None
        self._since_memory: Array | None = None

    def start(self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[FrameResult]:
        """Process the first frame of every video, with a mask that has the ids of all its objects.

        Raises:
          InputError: the frames have different sizes, or a mask cannot be used.
        """
        sizes = {image.shape for image in images}
        if len(sizes) > 1:
            raise InputError(f"videos of a batch need frames of one size, but have {sorted(sizes)}")
        results = []
        for session, image, mask in zip(self._sessions, images, masks, strict=True):
            session.add(mask)
            results.append(session.step(image))
        objects = max(session.capacity.objects for session in self._sessions)
        states = [session.hand_over(objects) for session in self._sessions]
        self._structure = jax.tree.structure(states[0])
        parts = zip(*map(jax.tree.leaves, states), strict=True)
        self._leaves = [jnp.stack(arrays) for arrays in parts]
        self._since_memory = states[0].since_memory
        return results

    def step(self, images: Sequence[np.ndarray]) -> list[FrameResult]:
        """Process the next frame of every video; a video that has ended may be given any frame."""
        first = self._sessions[0]
        geometry = first.geometry
        assert geometry is not None
        assert self._since_memory is not None
        self._leaves, self._since_memory, prob = _step(
            first.network.model, first.propagation, geometry, self._structure,
            first.network.variables, self._leaves, self._since_memory, np.stack(images),
        )  # fmt: skip
        return [session.take(prob[i]) for i, session in enumerate(self._sessions)]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=(5,))
def _step(
    model: S3,
    config: PropagationConfig,
    geometry: FrameGeometry,
    structure: Any,
    variables: Variables,
    leaves: Leaves,
    since_memory: Int[Array, ""],
    images: UInt8[Array, "v h w 3"],
) -> tuple[Leaves, Int[Array, ""], Float[Array, "v n H W"]]:
    """Run `step` for v videos, which share one value of `since_memory`."""
    network = Network(model, variables)

    def one(leaves: Leaves, image: UInt8[Array, "h w 3"]) -> tuple[Leaves, Array, Array]:
        """Run the step of one video."""
        state: VideoState = jax.tree.unflatten(structure, leaves)
        state = state.replace(since_memory=since_memory)
        state, prob = step(network, config, state, prepare_image(image, geometry))
        return jax.tree.leaves(state), state.since_memory, prob

    leaves, since, prob = jax.vmap(one)(leaves, images)
    return leaves, since[0], prob
