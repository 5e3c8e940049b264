import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.memory import state, working
from s3_jax.memory.state import KeyValueMemory, MemoryLayout
from tests.support.memory_sizes import memory_sizes

TOKENS, KEY_DIM, VALUE_DIM = 4, 3, 5
WRITE_FRAME = jax.jit(working.write_frame)


def _write(memory: KeyValueMemory, number: float, *, active=(True, True), permanent=False,
           bucket_of=(0, 1, 0)) -> KeyValueMemory:  # fmt: skip
    """Write a frame whose every entry is `number`."""
    b, k = memory.value.shape[:2]
    key = jnp.full((b, TOKENS, KEY_DIM), float(number))
    value = jnp.full((b, k, TOKENS, VALUE_DIM), float(number))
    bucket_of, active = jnp.array(bucket_of, jnp.int32), jnp.array(active)
    return WRITE_FRAME(
        memory, key, key[..., 0], key, value, bucket_of, active, jnp.array(permanent)
    )


def _frames(memory: KeyValueMemory, bucket: int) -> tuple[list[float], list[float]]:
    """Numbers of the permanent and the temporary slots of a bucket."""
    numbers = np.asarray(memory.key)[0, bucket, memory.layout.long_term :: TOKENS, 0].tolist()
    return numbers[: memory.layout.permanent], numbers[memory.layout.permanent :]


def _init(permanent=2, temporary=2, long_term=0, batch=2) -> KeyValueMemory:
    layout = MemoryLayout(TOKENS, permanent, temporary, long_term)
    return state.init(layout, batch, 2, 3, KEY_DIM, VALUE_DIM)


def test_first_frame_is_permanent_and_others_replace_the_oldest():
    memory = _init()
    for number in (1, 2, 3, 4):
        memory = _write(memory, number, active=(True, number >= 3))
    assert _frames(memory, 0) == ([1, 0], [4, 3])
    assert _frames(memory, 1) == ([3, 0], [4, 0])
    sizes = memory_sizes(memory)
    np.testing.assert_array_equal(sizes, [[12, 4, 0], [8, 4, 0]])


def test_permanent_frames_stay():
    memory = _init()
    for number in (1, 2, 3, 4, 5):
        memory = _write(memory, number, permanent=jnp.array(number == 2))
    assert _frames(memory, 0) == ([1, 2], [5, 4])


def test_permanent_frame_without_room_is_kept_as_a_temporary_one():
    memory = _init(permanent=1)
    for number in (1, 2):
        memory = _write(memory, number, permanent=True)
    assert _frames(memory, 0) == ([1], [2, 0])
    grown = _write(state.grow(memory, permanent=2), 3, permanent=True)
    assert _frames(grown, 0) == ([1, 3], [2, 0])


def test_no_temporary_slots():
    memory = _init(temporary=0)
    for number in (1, 2, 3):
        memory = _write(memory, number, permanent=number == 3)
    assert _frames(memory, 0) == ([1, 3], [])


def test_values_go_to_objects_of_active_buckets_only():
    memory = _write(_init(), 1.0, active=(True, False), bucket_of=(0, 1, -1))
    written = np.asarray(memory.value).any(axis=(0, 2, 3))
    np.testing.assert_array_equal(written, [True, False, False])
    np.testing.assert_array_equal(memory.value[:, 0, :TOKENS], 1)


def test_new_tokens_start_unused():
    memory = _write(_init(long_term=3), 1.0)
    _, usage, life = state.usage_record(memory)
    memory = memory.replace(usage=usage + 5, life=life + 7)
    memory = _write(memory, 2.0)
    new = slice(memory.layout.temporary_start, memory.layout.temporary_start + TOKENS)
    selection, usage, life = state.usage_record(memory)
    np.testing.assert_array_equal(usage[:, :, new], 0)
    np.testing.assert_allclose(life[:, :, new], 1e-7)
    np.testing.assert_array_equal(selection[:, :, new], 2)
    np.testing.assert_array_equal(usage[:, :, new.stop :], 5)


def test_selection_is_needed_with_long_term_memory_only():
    key, value = jnp.ones((2, TOKENS, KEY_DIM)), jnp.ones((2, 3, TOKENS, VALUE_DIM))
    arguments = (key, key[..., 0], None, value, jnp.zeros(3, jnp.int32), jnp.array([True, True]))
    written = WRITE_FRAME(_init(), *arguments)
    np.testing.assert_array_equal(written.key[:, :, :TOKENS], 1)
    with pytest.raises(ValueError, match="selection is None"):
        working.write_frame(_init(long_term=3), *arguments)


@pytest.mark.parametrize("long_term", [0, 8])
def test_writing_is_in_place(long_term):
    """Nothing of the memory's size is allocated if the memory is donated."""
    memory = state.init(MemoryLayout(64, 1, 4, long_term), 1, 2, 8, 8, 64)
    frame = (jnp.ones((1, 64, 8)), jnp.ones((1, 64)), jnp.ones((1, 64, 8)),
             jnp.ones((1, 8, 64, 64)))  # fmt: skip
    step = jax.jit(working.write_frame, donate_argnums=0)
    compiled = step.lower(memory, *frame, jnp.zeros(8, jnp.int32), jnp.array([True, False]),
                          jnp.array(False)).compile()  # fmt: skip
    analysis = compiled.memory_analysis()
    assert analysis is not None
    assert analysis.alias_size_in_bytes >= memory.value.nbytes + memory.key.nbytes
    assert analysis.temp_size_in_bytes < memory.key.nbytes / 2
