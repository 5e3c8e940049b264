from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.memory import read, state, working
from s3_jax.memory.state import KeyValueMemory, MemoryLayout
from s3_jax.ops import similarity

# Compiled whole, which is quicker than operation by operation.
READ = jax.jit(read.read, static_argnums=4, static_argnames=("dense", "query_chunk"))
READ_FRAMES = jax.jit(read.read_frames)
WRITE_FRAME = jax.jit(working.write_frame)
WAYS: dict[str, dict[str, Any]] = {
    "listed": {},
    "dense": {"dense": True},
    "dense chunks": {"dense": True, "query_chunk": 7},
}


def read_all(memory: KeyValueMemory, *query: jax.Array) -> jax.Array:
    """Readout over all tokens."""
    return READ(memory, *query, memory.key.shape[2], dense=True)[0]


class Frames(NamedTuple):
    """Frames to remember and a query frame."""

    key: jax.Array  # b t n c
    shrinkage: jax.Array  # b t n
    value: jax.Array  # b k t n c
    query_key: jax.Array  # b n c
    query_selection: jax.Array  # b n c

    def memory(self, long_term: int = 0) -> KeyValueMemory:
        """All frames in one bucket, the first one permanent."""
        b, k, t, n, cv = self.value.shape
        layout = MemoryLayout(n, 1, max(t - 1, 1), long_term)
        memory = state.init(layout, b, 1, k, self.key.shape[-1], cv, self.value.dtype)
        for i in range(t):
            memory = WRITE_FRAME(
                memory, self.key[:, i], self.shrinkage[:, i], self.query_selection,
                self.value[:, :, i], _in_bucket_0(self), jnp.array([True]),
            )  # fmt: skip
        return memory


def _in_bucket_0(frames: Frames) -> jax.Array:
    return jnp.zeros(frames.value.shape[1], jnp.int32)


def _random_frames(
    t: int, n: int = 9, k: int = 2, b: int = 1, dtype: jnp.dtype = jnp.float32
) -> Frames:
    random = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    return Frames(normal(b, t, n, 8), 1 + normal(b, t, n) ** 2, normal(b, k, t, n, 6).astype(dtype),
                  normal(b, n, 8), jax.nn.sigmoid(normal(b, n, 8)))  # fmt: skip


def _recorded_frames(golden, prefix: str) -> Frames:
    """Recorded maps B C T H W, B C H W, as tokens with channels last."""

    def tokens(name: str, channels: int) -> jax.Array:
        array = jnp.asarray(golden[f"{prefix}.{name}"])
        array = array.reshape(*array.shape[:-2], -1)
        return jnp.moveaxis(array, channels, -1)

    if prefix == "memory":
        value = tokens("in.mv", 1)[:, None]
        key, shrinkage, query, selection = "in.mk", "in.ms", "in.qk", "in.qe"
    else:
        value = jnp.stack([tokens(f"enc.{x}.value", 2) for x in ("deep", "shallow")], axis=2)
        key, shrinkage, query, selection = "mem.key", "mem.shrinkage", "key", "selection"
    one_channel = tokens(shrinkage, 1)[..., 0]
    return Frames(tokens(key, 1), one_channel, value, tokens(query, 1), tokens(selection, 1))


def _assert_recorded(golden, name: str, have: jax.Array) -> None:
    """`have` has channels last, b k n c."""
    want = golden[name]
    have = jnp.moveaxis(have, -1, 2).reshape(want.shape)
    np.testing.assert_allclose(have, want, rtol=0, atol=golden[f"tolerance.{name}"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("top", ["5", "30", "all"])
def test_recorded_readout_and_usage_of_modules(goldens, way, top):
    with np.load(goldens / "memory.npz") as golden:
        frames = _recorded_frames(golden, "memory")
        memory = frames.memory(long_term=4)
        top_k = memory.layout.num_tokens if top == "all" else int(top)
        readout, memory = READ(
            memory, frames.query_key, frames.query_selection, _in_bucket_0(frames), top_k,
            **WAYS[way],
        )  # fmt: skip
        _assert_recorded(golden, f"memory.readout.top{top}", readout)
        # Permanent tokens, here those of the first frame, are not counted.
        start, n = memory.layout.temporary_start, memory.layout.tokens_per_frame
        name = f"memory.usage.top{top}"
        want, tolerance = golden[name][:, n:], golden[f"tolerance.{name}"]
        np.testing.assert_allclose(memory.usage[:, 0, start:], want, rtol=0, atol=tolerance)
        np.testing.assert_array_equal(memory.usage[:, 0, :start], 0)
        np.testing.assert_allclose(memory.life[:, 0, start:], 1, rtol=1e-6)
        np.testing.assert_allclose(memory.life[:, 0, :start], 1e-7, rtol=1e-6)


def test_recorded_readout_of_network(goldens):
    """The readout is over all tokens, as in training, from a memory and from a stack of frames."""
    with np.load(goldens / "memory.npz") as golden:
        frames = _recorded_frames(golden, "network")
        readout = read_all(
            frames.memory(), frames.query_key, frames.query_selection, _in_bucket_0(frames)
        )
        _assert_recorded(golden, "network.mem.readout", readout)
        valid = jnp.ones(frames.key.shape[:2], bool)
        readout = READ_FRAMES(frames.key, frames.shrinkage, frames.value, valid,
                                   frames.query_key, frames.query_selection)  # fmt: skip
        _assert_recorded(golden, "network.mem.readout", readout)


def test_recorded_usage_of_network(goldens):
    with np.load(goldens / "memory.npz") as golden:
        frames = _recorded_frames(golden, "network")
        _, memory = READ(
            frames.memory(long_term=1), frames.query_key, frames.query_selection,
            _in_bucket_0(frames), 10,
        )  # fmt: skip
        n = memory.layout.tokens_per_frame
        want, tolerance = (
            golden["network.mem.usage_top10"],
            golden["tolerance.network.mem.usage_top10"],
        )
        np.testing.assert_allclose(memory.usage[:, 0, -n:], want[:, n:], rtol=0, atol=tolerance)


@pytest.mark.parametrize("way", WAYS)
def test_many_tokens_and_queries(way):
    """More than one block of queries, and of tokens enough to rank them by blocks."""
    frames = _random_frames(t=3, n=170, b=2)
    memory = frames.memory()
    readout, _ = READ(
        memory, frames.query_key, frames.query_selection, _in_bucket_0(frames), 3, **WAYS[way]
    )
    b, t, n, c = frames.key.shape
    key, shrinkage = frames.key.reshape(b, t * n, c), frames.shrinkage.reshape(b, t * n)
    scores = similarity.similarity(key, shrinkage, frames.query_key, frames.query_selection)
    best, index = jax.lax.top_k(scores, 3)
    weight = jax.nn.softmax(best)
    for item in range(b):
        values = frames.value[item].reshape(2, t * n, -1)[:, index[item]]
        want = jnp.sum(weight[item][None, ..., None] * values, axis=2)
        np.testing.assert_allclose(readout[item], want, atol=1e-5)


def test_bfloat16_values():
    frames = _random_frames(t=3, dtype=jnp.bfloat16)
    arguments = (frames.query_key, frames.query_selection, _in_bucket_0(frames), 5)
    listed, _ = READ(frames.memory(), *arguments)
    dense, _ = READ(frames.memory(), *arguments, dense=True)
    exact = frames._replace(value=frames.value.astype(jnp.float32)).memory()
    exact, _ = READ(exact, *arguments)
    assert listed.dtype == dense.dtype == jnp.bfloat16
    np.testing.assert_allclose(listed.astype(jnp.float32), exact, atol=2e-2)
    np.testing.assert_allclose(dense.astype(jnp.float32), exact, atol=4e-2)


def test_masked_frames_are_not_read():
    frames = _random_frames(t=4, b=2)
    valid = jnp.array([[True, False, True, True], [False] * 4])
    arguments = (frames.query_key, frames.query_selection)
    masked = READ_FRAMES(frames.key, frames.shrinkage, frames.value, valid, *arguments)
    keep = np.array([0, 2, 3])
    want = READ_FRAMES(frames.key[:, keep], frames.shrinkage[:, keep],
                            frames.value[:, :, keep], jnp.ones((2, 3), bool),
                            *arguments)  # fmt: skip
    np.testing.assert_allclose(masked[0], want[0], atol=1e-6)
    np.testing.assert_array_equal(masked[1], 0)


def test_gradients_of_frames():
    """Those of a plain softmax; none for masked frames, none (but finite) with no frame at all."""
    frames = _random_frames(t=3, b=2)
    valid = jnp.array([[True, True, False], [False, False, False]])

    def loss(frames: Frames) -> jax.Array:
        key, shrinkage, value, *query = frames
        return jnp.sum(jnp.sin(READ_FRAMES(key, shrinkage, value, valid, *query)))

    def plain_loss(frames: Frames) -> jax.Array:
        key, shrinkage = frames.key[0, :2].reshape(18, 8), frames.shrinkage[0, :2].reshape(18)
        value = frames.value[0, :, :2].reshape(2, 18, 6)
        difference = (key[None] - frames.query_key[0][:, None]) ** 2
        distance = jnp.sum(frames.query_selection[0][:, None] * difference, axis=-1)
        affinity = jax.nn.softmax(-shrinkage[None] * distance / np.sqrt(8))
        return jnp.sum(jnp.sin(jnp.einsum("mn,knc->kmc", affinity, value)))

    have, want = jax.jit(jax.grad(loss))(frames), jax.jit(jax.grad(plain_loss))(frames)
    for name, gradient in have._asdict().items():
        np.testing.assert_allclose(gradient, getattr(want, name), atol=2e-5, err_msg=name)
    np.testing.assert_array_equal(have.key[0, 2], 0)


@pytest.mark.parametrize("way", ["listed", "dense", "all"])
def test_gradients_of_reading_a_memory_with_an_empty_bucket(way):
    frames = _random_frames(t=2, k=3)
    memory = state.grow(frames.memory(), buckets=2)
    bucket_of = jnp.array([0, 1, -1])

    def readout(value: jax.Array, query: jax.Array) -> jax.Array:
        filled = memory.replace(value=value)
        arguments = (filled, query, frames.query_selection, bucket_of)
        if way == "all":
            return read_all(*arguments)
        return READ(*arguments, 5, **WAYS[way])[0]

    have = readout(memory.value, frames.query_key)
    assert (have[:, 0] != 0).any()
    np.testing.assert_array_equal(have[:, 1:], 0)
    gradients = jax.jit(jax.grad(lambda *x: jnp.sum(jnp.square(readout(*x))), argnums=(0, 1)))(
        memory.value, frames.query_key
    )
    for gradient in gradients:
        assert jnp.isfinite(gradient).all()
        assert gradient.any()
    np.testing.assert_array_equal(gradients[0][:, 1:], 0)


def test_reading_needs_little_memory_for_many_objects():
    """The values alone are 32 objects' tokens; gathering them for every pixel would be far more."""
    layout = MemoryLayout(256, 1, 3)
    memory = state.init(layout, 1, 1, 32, 8, 64)
    query = jnp.zeros((1, 256, 8))
    step = jax.jit(read.read, static_argnums=4)
    compiled = step.lower(memory, query, query, jnp.zeros(32, jnp.int32), 30).compile()
    readout = 4 * 32 * 256 * 64
    analysis = compiled.memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes < 2 * readout
