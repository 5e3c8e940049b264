"""Deformable attention: both forms equal the recordings and each other, gradients included."""

from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.models.deformable_attention import (
    POINTS,
    DeformableAttention,
    cell_centres,
)
from s3_jax.ops.deformable import Form, sample_by_gather, sample_by_product
from tests.support.goldens import Recording
from tests.support.gradients import with_gradients
from tests.support.params import flax_params

HEADS = {"deform_two_levels": 3, "deform_one_level": 4}
PARTS = (
    ("sampling_offsets", "offsets", "linear"),
    ("attention_weights", "weights", "linear"),
    ("value_proj", "value", "linear"),
    ("output_proj", "out", "linear"),
)


@pytest.mark.parametrize("form", ["gather", "dense"])
@pytest.mark.parametrize("case", HEADS)
def test_equals_recording(modules: Recording, case: str, form: Form) -> None:
    given = {name: jnp.asarray(x) for name, x in modules.below(f"{case}.in.").items()}
    shapes = [(int(h), int(w)) for h, w in given["shapes"]]
    module = DeformableAttention(HEADS[case], len(shapes), form)
    params = flax_params(modules.below(f"{case}.w."), *PARTS)

    reference = np.asarray(given["reference"][0, :, 0])

    @jax.jit
    def attend(params: Any) -> tuple[jax.Array, Any]:
        arrays = (given["query"], reference, given["feat"])
        return module.apply({"params": params}, *arrays, shapes, capture_intermediates=True,
                            mutable=["intermediates"])  # fmt: skip

    out, state = attend(params)
    offsets, weights = (
        np.asarray(state["intermediates"][name]["__call__"][0]).reshape(
            *given["query"].shape[:2], HEADS[case], len(shapes), -1
        )
        for name in ("offsets", "weights")
    )
    sizes = np.array([(w, h) for h, w in shapes], np.float32).reshape(1, 1, 1, -1, 1, 2)
    offsets = offsets.reshape(*offsets.shape[:-1], POINTS, 2)
    width = given["query"].shape[-1]
    as_they_come = {"kernel": jnp.eye(width), "bias": jnp.zeros(width)}
    ours = {
        f"{case}.out": out,
        f"{case}.before_output_proj": attend(params | {"out": as_they_come})[0],
        f"{case}.sampling_locations": given["reference"][..., None, None, :] + offsets / sizes,
        f"{case}.attention_weights": jax.nn.softmax(
            weights.reshape(*weights.shape[:3], -1), axis=-1
        ).reshape(weights.shape),
    }
    modules.assert_equal(ours, ours)


# Few, as each is compiled: batch, height, width, heads.
SHAPES = ((1, 1, 1, 1), (2, 1, 6, 2), (2, 5, 1, 1), (1, 4, 6, 3))
FORMS = [with_gradients(sample) for sample in (sample_by_gather, sample_by_product)]


@st.composite
def samplings(draw: st.DrawFn) -> tuple[np.ndarray, ...]:
    """Values, places and weights; places lie inside, on cell centres, or far outside."""
    b, h, w, heads = draw(st.sampled_from(SHAPES))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reach = draw(st.sampled_from([1.0, 10.0, 1e4, 1e12]))
    place = random.uniform(-reach, max(h, w) + reach, (b, 5, heads, POINTS, 2))
    if draw(st.booleans()):
        place = np.round(place)
    value = random.normal(size=(b, h, w, heads, 4))
    weight = random.normal(size=place.shape[:-1])
    return value.astype(np.float32), place.astype(np.float32), weight.astype(np.float32)


@hypothesis.given(samplings())
@hypothesis.settings(max_examples=60)
def test_forms_are_equal_with_gradients(sampling: tuple[np.ndarray, ...]) -> None:
    gathered, multiplied = (form(*map(jnp.asarray, sampling)) for form in FORMS)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gathered))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), gathered, multiplied
    )


def test_far_outside_reads_zero_and_half_outside_half() -> None:
    value = jnp.full((1, 3, 3, 1, 1), 2.0)
    place = jnp.array([[-40.0, 1.0], [1.0, 3e9], [-0.5, 1.0], [2.5, 2.5]]).reshape(1, 4, 1, 1, 2)
    weight = jnp.ones((1, 4, 1, 1))
    for sample in (sample_by_gather, sample_by_product):
        np.testing.assert_allclose(jax.jit(sample)(value, place, weight).ravel(), [0, 0, 1.0, 0.5])


def test_bfloat16_places_stay_precise() -> None:
    """Values may be rounded, places not: bfloat16 has eight bits, a 64-cell map needs more."""
    w = 64
    query = jnp.zeros((1, w, 8), jnp.bfloat16)
    features = jnp.linspace(0.0, 1.0, w)[None, :, None] * jnp.ones((1, 1, 8))
    module = DeformableAttention(2, form="gather", dtype=jnp.bfloat16)
    arrays = (query, cell_centres([(1, w)]), features, [(1, w)])
    layer = lambda n: {"kernel": jnp.zeros((8, n)), "bias": jnp.zeros(n)}  # noqa: E731
    one = layer(8) | {"kernel": jnp.eye(8)}
    params = {"offsets": layer(16), "weights": layer(8), "value": one, "out": one}
    out = jax.jit(lambda params: module.apply({"params": params}, *arrays))(params)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), features, atol=2**-8)


def test_cell_centres_run_row_by_row() -> None:
    centres = cell_centres([(2, 4), (1, 1)])
    np.testing.assert_allclose(centres[[0, 1, 4, 8]], [
        (0.125, 0.25), (0.375, 0.25), (0.125, 0.75), (0.5, 0.5),
    ])  # fmt: skip
