"""A scan over frames computes what stepping computes, and is a pure function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.config import PropagationConfig
from s3_jax.propagation.geometry import frame_geometry
from s3_jax.propagation.scan import scan
from s3_jax.propagation.session import Session
from s3_jax.propagation.state import init_state
from tests.propagation.conftest import TINY
from tests.support.marks import slow

SETTINGS = {
    "fifo": PropagationConfig(mem_every=2, max_mem_frames=3),
    "long_term": PropagationConfig(
        mem_every=1, long_term=True, lt_max_frames=4, lt_min_frames=2, lt_prototypes=8,
        lt_max_tokens=40, lt_buffer_tokens=8,
    ),
    "flip": PropagationConfig(mem_every=2, flip=True),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "at_once"),
    [("fifo", 1), slow("long_term", 1), slow("flip", 1), slow("flip", 4)],
)
def test_scanned_equals_stepwise(tiny_network, video, name, at_once):
    """The frames are encoded one by one, or 4, 4 and 3 of the 11 at once."""
    config = SETTINGS[name]
    session = Session(TINY, tiny_network.variables, config)
    session.add(video.hard_masks(0, 1, 2, 3))
    session.step(video.frames[0])
    state = jax.tree.map(jnp.copy, session.state)
    geometry = frame_geometry((64, 96), TINY.size_multiple)
    options = {"last": True, "encode_at_once": at_once}
    scanned = jax.jit(functools.partial(scan, tiny_network, config, geometry, **options))
    final, prob = scanned(state, jnp.asarray(video.frames[1:12]))
    stepped = [session.step(video.frames[t], end=t == 11).prob for t in range(1, 12)]
    np.testing.assert_allclose(prob, stepped, atol=2e-5)
    for a, b in zip(jax.tree.leaves(final), jax.tree.leaves(session.state), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-3)


def test_state_keeps_structure_shapes_and_types(tiny_network, video):
    session = Session(TINY, tiny_network.variables, SETTINGS["fifo"])
    session.add(video.hard_masks(0, 1, 2, 3))
    session.step(video.frames[0])

    def description() -> tuple:
        leaves, structure = jax.tree.flatten(session.state)
        return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]

    before = description()
    for t in range(1, 8):
        session.step(video.frames[t])
        assert description() == before


@pytest.mark.slow
def test_gradients_and_vmap(tiny_network, video):
    """Propagation can be differentiated, and mapped over videos."""
    session = Session(TINY, tiny_network.variables, SETTINGS["fifo"])
    session.add(video.hard_masks(0, 1, 2, 3))
    session.step(video.frames[0])
    state = session.state
    geometry = frame_geometry((64, 96), TINY.size_multiple)
    frames = jnp.asarray(video.frames[1:3])
    run = functools.partial(scan, config=SETTINGS["fifo"], geometry=geometry)

    def loss(params: dict) -> jax.Array:
        network = tiny_network._replace(variables=tiny_network.variables | {"params": params})
        _, prob = run(network, state=state, frames=frames)
        return jnp.mean(jnp.square(prob[:, 1]))

    gradients = jax.jit(jax.grad(loss))(tiny_network.variables["params"])
    norms = [float(jnp.linalg.norm(g)) for g in jax.tree.leaves(gradients)]
    assert np.isfinite(norms).all() and max(norms) > 0

    two = jnp.stack([frames, frames[::-1]])
    mapped = jax.jit(jax.vmap(lambda f: run(tiny_network, state=state, frames=f)[1]))(two)
    single = jax.jit(lambda f: run(tiny_network, state=state, frames=f)[1])
    for i in range(2):
        np.testing.assert_allclose(mapped[i], single(two[i]), atol=2e-5)


@pytest.mark.slow
def test_videos_on_several_devices_with_the_checks_of_shard_map(tiny_network):
    """The types of a scan over one video per device, long-term memory included."""
    config, size = SETTINGS["long_term"], (64, 96)
    state = init_state(TINY, config, size, 2)
    leaves, structure = jax.tree.flatten(state)

    def run(leaves: list[jax.Array], frames: jax.Array) -> jax.Array:
        state = jax.tree.unflatten(structure, [leaf[0] for leaf in leaves])
        return scan(tiny_network, config, frame_geometry(size, 32), state, frames[0])[1][None]

    mesh = jax.make_mesh((1,), ("videos",), axis_types=(jax.sharding.AxisType.Auto,))
    videos = jax.sharding.PartitionSpec("videos")
    mapped = jax.shard_map(run, mesh=mesh, in_specs=(videos, videos), out_specs=videos)
    stacked = [jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype) for leaf in leaves]
    frames = jax.ShapeDtypeStruct((1, 3, *size, 3), jnp.uint8)
    assert jax.eval_shape(mapped, stacked, frames).shape == (1, 3, 3, *size)
