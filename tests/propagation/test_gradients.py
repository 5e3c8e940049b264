"""Gradients through a video equal finite differences, and their memory use does not grow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.config import PropagationConfig
from s3_jax.models.s3 import S3
from s3_jax.propagation.frame import Network
from s3_jax.propagation.geometry import frame_geometry
from s3_jax.propagation.scan import scan
from s3_jax.propagation.session import Session
from s3_jax.propagation.state import VideoState, assign_slots, init_state
from s3_jax.propagation.step import annotate, step
from tests.propagation.conftest import WIDE

pytestmark = pytest.mark.slow

SIZE, OBJECTS = (32, 32), 2
CONFIGS = {
    "first in, first out": PropagationConfig(mem_every=1, max_mem_frames=2, top_k=6),
    "long-term": PropagationConfig(
        mem_every=1, top_k=6, long_term=True, lt_max_frames=3, lt_min_frames=1, lt_prototypes=3,
        lt_max_tokens=8, lt_buffer_tokens=2,
    ),
}  # fmt: skip


def first_state(config: PropagationConfig, dtype=jnp.float32) -> VideoState:
    state = init_state(WIDE, config, SIZE, OBJECTS, jnp.dtype(dtype).type)
    return assign_slots(state, jnp.ones(OBJECTS, bool), jnp.int32(0))


def segment_all(network: Network, config: PropagationConfig, images, masks) -> jax.Array:
    """Probabilities (t n H W) in frames whose first has these masks (k H W)."""
    state = first_state(config, images.dtype)
    given = jnp.ones(OBJECTS, bool)
    state, first = annotate(network, config, state, images[0], masks[None], given, complete=True)
    _, others = jax.lax.scan(functools.partial(step, network, config), state, images[1:])
    return jnp.concatenate([first[None], others])


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_those_of_finite_differences(wide_network, name):
    """Checked in float64 for images, masks and parameters; long-term memory is condensed twice."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        model = S3(WIDE, dtype=jnp.float64)
        variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), wide_network.variables)
        inputs = {
            "images": rng.uniform(0.1, 0.9, (5, 1, *SIZE, 3)),
            "masks": rng.uniform(0.05, 0.45, (OBJECTS, *SIZE)),
            "params": variables["params"],
        }
        weights = rng.standard_normal((5, OBJECTS + 1, *SIZE))

        @jax.jit
        @jax.value_and_grad
        def loss(inputs: dict) -> jax.Array:
            network = Network(model, variables | {"params": inputs["params"]})
            prob = segment_all(network, CONFIGS[name], inputs["images"], inputs["masks"])
            return jnp.mean(prob * weights)

        _, gradients = loss(inputs)
        for part in inputs:
            way = jax.tree.map(lambda x: rng.standard_normal(x.shape), inputs[part])
            products = jax.tree.map(lambda g, d: np.sum(g * d), gradients[part], way)
            value = lambda x, part=part: loss(inputs | {part: x})[0]  # noqa: E731
            expected = _slope(value, inputs[part], way)
            assert abs(expected) > 1e-7
            np.testing.assert_allclose(sum(jax.tree.leaves(products)), expected, rtol=1e-4)


def _slope(function, x, way, length: float = 1e-7) -> float:
    """Central difference of a function along a way."""
    ends = (jax.tree.map(lambda x, d, s=s: x + s * length * d, x, way) for s in (1, -1))
    ahead, behind = map(function, ends)
    return float(ahead - behind) / (2 * length)


def test_a_hard_first_mask_has_a_gradient(wide_network):
    config = CONFIGS["first in, first out"]
    images = jnp.asarray(np.random.default_rng(1).uniform(0, 1, (2, 1, *SIZE, 3)), jnp.float32)
    masks = jnp.zeros((OBJECTS, *SIZE)).at[0, 4:20, 4:20].set(1).at[1, 22:30, 5:25].set(1)

    def loss(masks: jax.Array) -> jax.Array:
        return jnp.mean(segment_all(wide_network, config, images, masks)[1, 1])

    gradient = jax.jit(jax.grad(loss))(masks)
    assert np.isfinite(gradient).all()
    for k in range(OBJECTS):
        inside = np.asarray(masks[k]) == 1
        assert np.abs(gradient[k])[inside].max() > 1e-7
        assert np.abs(gradient[k])[~inside].max() > 1e-7


def test_rematerialized_scan_needs_little_memory_for_its_gradient(wide_network):
    """Without, memory grows with the number of frames; with it, by little more than the state."""
    config = CONFIGS["first in, first out"]
    run = functools.partial(scan, config=config, geometry=frame_geometry(SIZE, 32))
    state = first_state(config)
    states = sum(leaf.nbytes for leaf in jax.tree.leaves(state))

    def loss(params: dict, frames: jax.Array, remat: bool) -> jax.Array:
        network = wide_network._replace(variables=wide_network.variables | {"params": params})
        _, prob = run(network, state=state, frames=frames, remat=remat)
        return jnp.mean(jnp.square(prob[:, 1]))

    params = wide_network.variables["params"]
    gradient = jax.jit(jax.grad(loss), static_argnums=2)

    def compiled(count: int, remat: bool):
        frames = jax.ShapeDtypeStruct((count, *SIZE, 3), jnp.uint8)
        return gradient.lower(params, frames, remat).compile()

    def needed(program) -> int:
        return program.memory_analysis().temp_size_in_bytes

    short, long, kept = compiled(4, True), compiled(12, True), compiled(12, False)
    assert needed(long) - needed(short) < 8 * 3 * states
    assert needed(kept) > 3 * needed(long)
    frames = np.random.default_rng(2).integers(0, 256, (12, *SIZE, 3), np.uint8)
    for a, b in zip(*(jax.tree.leaves(f(params, frames)) for f in (kept, long)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_same_masks_with_64_bit_numbers_switched_on(wide_network, video, name):
    def run() -> list[np.ndarray]:
        session = Session(WIDE, wide_network.variables, CONFIGS[name])
        session.add(video.hard_masks(0, 1, 2))
        return [result.prob for result in session.propagate(video.frames[:6])]

    expected = run()
    with jax.enable_x64(True):
        found = run()
    np.testing.assert_allclose(found, expected, atol=2e-5)
