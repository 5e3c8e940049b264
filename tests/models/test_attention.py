"""Multi-head attention: every form equals the textbook definition, in values and gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.models.attention import MultiHeadAttention
from s3_jax.ops import attention
from s3_jax.ops.attention import attend
from s3_jax.ops.backend import compiling_for
from s3_jax.ops.products import operands
from tests.support.gradients import with_gradients

WIDTH, HEADS = 16, 4
MODULE = MultiHeadAttention(HEADS)


def textbook(params: Any, query: Any, key: Any, value: Any, blocked: Any) -> Any:
    """softmax(q k / sqrt(d)) v, projected before and after."""
    c = query.shape[-1]

    def project(x: Any, i: int) -> Any:
        part = slice(i * c, (i + 1) * c)
        y = x @ params["in_kernel"][:, part] + params["in_bias"][part].reshape(1, 1, c)
        return y.reshape(*x.shape[:2], HEADS, c // HEADS)

    q, k, v = (project(x, i) for i, x in enumerate((query, key, value)))
    score = jnp.einsum("bmhd,bnhd->bhmn", q, k) / np.sqrt(c // HEADS)
    if blocked is not None:
        score = jnp.where(blocked, -jnp.inf, score)
    mixed = jnp.einsum("bhmn,bnhd->bmhd", jax.nn.softmax(score), v).reshape(query.shape)
    return mixed @ params["out_kernel"] + params["out_bias"].reshape(1, 1, c)


def random_arrays(seed: int, *shapes: tuple[int, ...]) -> list[jax.Array]:
    random = np.random.default_rng(seed)
    return [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes]


# Up to 3 keys the projections are folded onto keys and values; not if some pairs are blocked.
@pytest.mark.parametrize(
    ("keys", "mask"),
    [(1, "none"), (3, "none"), (20, "none"), (3, "shared"), (20, "per head")],
)
def test_module_is_the_textbook_form(keys: int, mask: str) -> None:
    query, key, value = random_arrays(keys, (2, 5, WIDTH), *[(2, keys, WIDTH)] * 2)
    names = {"in_kernel": (WIDTH, 3 * WIDTH), "in_bias": (3 * WIDTH,),
             "out_kernel": (WIDTH, WIDTH), "out_bias": (WIDTH,)}  # fmt: skip
    params = dict(zip(names, random_arrays(0, *names.values()), strict=True))
    blocked = None
    if mask != "none":
        shape = (2, 1 if mask == "shared" else HEADS, 5, keys)
        blocked = (jax.random.uniform(jax.random.key(0), shape) < 0.5).at[..., 0].set(False)
    compare(
        with_gradients(lambda params, *x: MODULE.apply({"params": params}, *x, blocked)),
        with_gradients(lambda params, q, k, v: textbook(params, q, k, v, blocked)),
        (params, query, key, value),
        tolerance=1e-3,
    )


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_head_by_head_is_the_plain_form(scale: float) -> None:
    """Many keys take another way on the CPU; large scores must not overflow there."""
    query, key, value = random_arrays(0, (2, 7, 3, 8), (2, 300, 3, 8), (2, 300, 3, 8))
    nothing_blocked = jnp.zeros((2, 1, 7, 300), bool)
    compare(
        with_gradients(attend),
        with_gradients(lambda q, k, v: attend(q, k, v, nothing_blocked)),
        (scale * query, key, value),
        tolerance=1e-4 * scale,
    )


@pytest.mark.parametrize("n_keys", [256, 300])
def test_weights_rounded_to_bfloat16_still_sum_to_one(n_keys: int) -> None:
    """Equal values come back as they are, and other results are off by rounding only."""
    query, key, value = random_arrays(0, (2, 7, 3, 8), (2, n_keys, 3, 8), (2, n_keys, 3, 8))
    with operands(jnp.bfloat16):
        rounded = attend(query, key, value)
        same = attend(query, key, jnp.full_like(value, 0.5))
    np.testing.assert_allclose(same, 0.5, rtol=1e-6)
    np.testing.assert_allclose(rounded, attend(query, key, value), atol=0.01)
    assert not np.array_equal(rounded, attend(query, key, value))


@pytest.mark.parametrize("heads_at_once", [1, 2, 4])
def test_part_by_part_is_the_plain_form(
    heads_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The form of a TPU where there are many keys: item by item, some heads at a time."""
    query, key, value = random_arrays(0, (2, 7, 4, 8), (2, 300, 4, 8), (2, 300, 4, 8))
    nothing_blocked = jnp.zeros((2, 1, 7, 300), bool)
    monkeypatch.setattr(attention, "SCORES_AT_ONCE", heads_at_once * 7 * 300)

    def for_tpu(*arguments: jax.Array) -> jax.Array:
        with compiling_for("tpu"):
            return attend(*arguments)

    assert f"length={2 * 4 // heads_at_once}" in str(jax.make_jaxpr(for_tpu)(query, key, value))
    compare(
        with_gradients(for_tpu),
        with_gradients(lambda q, k, v: attend(q, k, v, nothing_blocked)),
        (query, key, value),
        tolerance=1e-4,
    )


def compare(ours: Any, theirs: Any, arguments: tuple[Any, ...], tolerance: float) -> None:
    """Values and gradients of two functions."""
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=tolerance),
        ours(*arguments),
        theirs(*arguments),
    )


def test_half_precision_scores_are_not_rounded() -> None:
    """Two keys whose scores differ by less than bfloat16 resolves at that size."""
    query = jnp.full((1, 1, 1, 1), 128.0, jnp.bfloat16)
    key = jnp.array([1.0, 1.0078125], jnp.bfloat16).reshape(1, 2, 1, 1)
    value = jnp.array([0.0, 1.0], jnp.bfloat16).reshape(1, 2, 1, 1)
    weight = attend(query, key, value).astype(jnp.float32).item()
    assert weight == pytest.approx(1 / (1 + np.exp(-1.0)), abs=0.01)
