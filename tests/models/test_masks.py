"""Soft aggregation of masks, and the part of other objects' masks that an object sees."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from s3_jax.models import masks
from tests.support.goldens import Recording

aggregate, foreground, others = (
    jax.jit(masks.aggregate),
    jax.jit(masks.foreground),
    jax.jit(masks.others),
)
probabilities = hnp.arrays(
    np.float32, (1, 3, 2, 4), elements=st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.5, 1.0])
)
quick = hypothesis.settings(max_examples=50)


def test_aggregate_equals_recording(modules: Recording) -> None:
    logits = aggregate(jnp.asarray(modules["aggregate.in"])[None])[0]
    ours = {"aggregate.logits": logits, "aggregate.prob": jax.nn.softmax(logits, axis=0)}
    modules.assert_equal(ours, ours)


@hypothesis.given(probabilities)
@quick
def test_aggregate_is_bounded_and_ranks_like_the_probabilities(prob: np.ndarray) -> None:
    logits = np.asarray(aggregate(jnp.asarray(prob)))
    assert logits.min() >= -16.2
    assert logits.max() <= 16.0
    order = np.argsort(prob, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(logits[:, 1:], order, axis=1), axis=1) >= 0).all()


@hypothesis.given(probabilities)
@quick
def test_foreground_is_where_an_object_is_at_least_as_likely(prob: np.ndarray) -> None:
    logits = np.asarray(aggregate(jnp.asarray(prob)))
    expected = logits[:, 1:] >= logits.max(axis=1, keepdims=True)
    np.testing.assert_array_equal(foreground(jnp.asarray(prob)), expected)
    np.testing.assert_array_equal(foreground(jnp.asarray(prob), jnp.ones((3, 3))), expected)


@hypothesis.given(probabilities)
@quick
def test_others_are_the_sum_of_the_rest(mask: np.ndarray) -> None:
    exact = mask.astype(np.float64)
    expected = np.stack(
        [np.clip(np.delete(exact, k, axis=1).sum(axis=1), 0, 1) for k in range(3)], axis=1
    )
    seen = others(jnp.asarray(mask))
    np.testing.assert_allclose(seen, expected, atol=1e-6)
    same = others(jnp.asarray(mask), jnp.ones((3, 3)))
    np.testing.assert_allclose(same, seen, atol=1e-6)


@hypothesis.given(probabilities)
@quick
def test_groups_are_blind_to_each_other(mask: np.ndarray) -> None:
    """Object 1 is alone; objects 0 and 2 belong together."""
    prob, pair = jnp.asarray(mask), jnp.array([0, 2])
    group = jnp.array([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    np.testing.assert_allclose(others(prob, group)[:, pair], others(prob[:, pair]), atol=1e-6)
    np.testing.assert_array_equal(others(prob, group)[:, 1], 0)
    np.testing.assert_array_equal(foreground(prob, group)[:, pair], foreground(prob[:, pair]))
    np.testing.assert_array_equal(foreground(prob, group)[:, 1:2], foreground(prob[:, 1:2]))


@hypothesis.given(hnp.arrays(np.float32, (1, 4, 3, 2), elements=st.floats(-30, 30, width=32)))
@quick
def test_softmax_over_objects_is_that_of_jax(logits: np.ndarray) -> None:
    for some in (logits, np.where(np.arange(4).reshape(1, 4, 1, 1) == 2, -np.inf, logits)):
        expected, expected_gradient = jax.vjp(lambda x: jax.nn.softmax(x, axis=1), some)
        found, gradient = jax.vjp(masks.softmax_over_objects, some)
        np.testing.assert_allclose(found, expected, atol=3e-7)
        np.testing.assert_allclose(gradient(logits)[0], expected_gradient(logits)[0], atol=3e-5)
