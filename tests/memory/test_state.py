from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.memory import long_term, read, state, working
from s3_jax.memory.state import MemoryLayout
from tests.memory.numpy_memory import Settings
from tests.memory.videos import Frame, Video, assert_same_content, assert_same_readout
from tests.support.memory_sizes import memory_sizes

LONG_TERM = Settings(4, 6, True, min_frames=2, prototypes=3, max_tokens=11, buffer_tokens=2)


def _signature(memory: state.KeyValueMemory) -> list[tuple]:
    leaves, structure = jax.tree.flatten(memory)
    return [structure, *((leaf.shape, leaf.dtype) for leaf in leaves)]


@pytest.mark.parametrize("capacity, dtype", [(0, jnp.float32), (16, jnp.bfloat16)])
def test_every_function_keeps_structure_shapes_and_types(capacity, dtype):
    memory = state.init(MemoryLayout(4, 1, 3, capacity), 2, 2, 3, 8, 6, dtype)
    key, bucket_of = jnp.ones((2, 4, 8)), jnp.array([0, 1, -1])
    value, active = jnp.ones((2, 3, 4, 6)), jnp.array([True, False])
    functions = [
        lambda m: working.write_frame(m, key, key[..., 0], key, value, bucket_of, active),
        lambda m: state.clear_buckets(m, active),
    ]
    if capacity:
        functions.append(partial(long_term.consolidate, num_prototypes=3, min_frames=2,
                                 buffer_tokens=2, bucket_of=bucket_of))  # fmt: skip
    for function in functions:
        changed = jax.eval_shape(function, memory)
        assert _signature(changed) == _signature(memory)
    for dense in (False, True):
        reading = partial(read.read, top_k=5, dense=dense)
        readout, changed = jax.eval_shape(reading, memory, key, key, bucket_of)
        assert (readout.shape, readout.dtype) == ((2, 3, 4, 6), dtype)
        assert _signature(changed) == _signature(memory)


def test_usage_is_kept_with_long_term_memory_only():
    arguments = (1, 1, 1, 8, 6)
    with_it = state.init(MemoryLayout(4, 1, 3, 16), *arguments)
    without = state.init(MemoryLayout(4, 1, 3), *arguments)
    assert without.usage is without.life is without.selection is None
    _, usage, life = state.usage_record(with_it)
    assert usage.shape == life.shape == (1, 1, 16 + 16)
    with pytest.raises(ValueError, match="long_term is 0"):
        state.usage_record(without)


@pytest.mark.parametrize("settings", [Settings(max_frames=4, top_k=6), LONG_TERM])
def test_grown_memory_goes_on_as_before(settings):
    """Slots are added in the middle of a video; content and readouts stay those of the plain one,
    and the new slots can be used."""
    video = Video(settings, seed=6, batch=2, buckets=1, objects=2, permanent=1)
    for t in range(9):
        video.run(Frame(new_objects=2 if t == 0 else 0))
    before = _signature(video.memory)
    video.memory = state.grow(video.memory, permanent=3, buckets=2, objects=4)
    assert before != _signature(video.memory)
    assert_same_content(video)
    video.slots += [None, None]
    video.buckets += [None]
    for t in range(9):
        video.run(Frame(new_objects=2 if t == 1 else 0, permanent=t in (2, 3)))
        assert_same_readout(video)
    assert_same_content(video)


def test_growing_to_the_present_size_changes_nothing():
    memory = Video(LONG_TERM, seed=0).memory
    grown = state.grow(memory, permanent=4, buckets=3)
    assert _signature(grown) == _signature(memory)


@pytest.mark.parametrize("name", ["permanent", "buckets", "objects"])
def test_memory_cannot_shrink(name):
    with pytest.raises(ValueError, match=f"{name} is 1"):
        state.grow(Video(LONG_TERM, seed=0).memory, **{name: 1})


def test_cleared_bucket_is_empty_and_starts_anew():
    video = Video(LONG_TERM, seed=7)
    for t in range(8):
        video.run(Frame(new_objects=int(t < 2)))
    untouched = np.asarray(memory_sizes(video.memory))[1]
    memory = state.clear_buckets(video.memory, jnp.array([True, False, False]))
    sizes = np.asarray(memory_sizes(memory))
    assert sizes[0].tolist() == [0, 0, 0]
    assert sizes[1].tolist() == untouched.tolist()
    assert not state.valid_tokens(memory)[0].any()


@pytest.mark.parametrize("values, words", [
    ((0, 1, 3), "tokens_per_frame is 0"), ((4, 0, 3), "permanent is 0"),
    ((4, 1, -1), "temporary is -1"), ((4, 1, 3, -1), "long_term is -1"),
    ((4, 1, 0, 5), "temporary is 0"),
])  # fmt: skip
def test_layouts_without_sense_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        MemoryLayout(*values)
