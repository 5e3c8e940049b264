import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.memory import object_memory


def test_values_are_means_over_all_summaries():
    random = np.random.default_rng(0)
    features = random.normal(size=(3, 1, 2, 4, 5, 6))  # frames b k q pixels c
    weight = random.random(size=(3, 1, 2, 4, 5))
    sums = (features * weight[..., None]).sum(axis=-2)
    summaries = np.concatenate([sums, weight.sum(-1)[..., None]], axis=-1).astype(np.float32)
    memory = object_memory.init_object_memory(1, 2, 4, 6)
    assert not object_memory.object_values(memory).any()
    for summary in summaries:
        memory = object_memory.add_summaries(memory, jnp.asarray(summary), jnp.array([True, True]))
    mean = sums.sum(0) / (weight.sum((0, -1))[..., None] + 1e-4)
    np.testing.assert_allclose(object_memory.object_values(memory), mean, atol=1e-5)


def test_inactive_objects_learn_nothing():
    memory = jnp.ones((2, 3, 4, 7))
    active = jnp.array([True, False, True])
    added = object_memory.add_summaries(memory, jnp.full_like(memory, jnp.nan), active)
    np.testing.assert_array_equal(added[:, 1], 1)
    assert jnp.isnan(added[:, 0]).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_clearing_objects(dtype):
    sensory = 1 + object_memory.init_sensory_memory(2, 3, 4, 5, 6, dtype)
    cleared = object_memory.clear_objects(sensory, jnp.array([False, True, False]))
    assert cleared.shape == (2, 3, 4, 5, 6)
    assert cleared.dtype == dtype
    np.testing.assert_array_equal(cleared[:, 1], 0)
    np.testing.assert_array_equal(cleared[:, ::2], 1)
