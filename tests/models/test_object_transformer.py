"""The attentions of the object transformer, and what queries may read."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.models import object_transformer
from s3_jax.models.attention import MultiHeadAttention
from s3_jax.models.object_attention import (
    DiscriminativeCrossAttention,
    MultiHeadCrossAttention,
)
from s3_jax.models.object_transformer import QuerySelfAttention
from tests.support.goldens import Recording
from tests.support.params import flax_params

HEADS = 4
blocked_pixels = jax.jit(object_transformer.blocked_pixels)
DISCRIMINATIVE = (
    (".alpha", "alpha", "vector"),
    (".norm", "norm", "layer_norm"),
    (".proj", "proj", "linear"),
    (".final", "out", "linear"),
)


@pytest.fixture(scope="module")
def tokens(modules: Recording) -> dict[str, jax.Array]:
    """Queries q and pixels x with their positions q_pos, x_pos; blocked (b heads q n)."""
    given = {name: jnp.asarray(x) for name, x in modules.below("dq_ca.in.").items()}
    return given | {"blocked": given["blocked"].reshape(-1, HEADS, *given["blocked"].shape[1:])}


@pytest.fixture(scope="module")
def discriminative_params(modules: Recording) -> Any:
    return flax_params(
        {f".{name}": x for name, x in modules.below("dq_ca.w.").items()}, *DISCRIMINATIVE
    )


def discriminate(
    params: Any, tokens: dict[str, jax.Array], blocked: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Queries that read pixels, and the similarities (b heads q n) they chose by."""
    module = DiscriminativeCrossAttention(HEADS)
    arrays = (tokens["q"], tokens["q_pos"], tokens["x"], tokens["x_pos"], blocked)
    out, state = module.apply({"params": params}, *arrays, mutable=["intermediates"])
    return out, state["intermediates"]["similarity"][0]


def test_discriminative_attention_equals_recording(
    modules: Recording, tokens: dict[str, jax.Array], discriminative_params: Any
) -> None:
    read = jax.jit(discriminate)
    out, similarity = read(discriminative_params, tokens, tokens["blocked"])
    free_out, free_similarity = read(discriminative_params, tokens, None)
    chosen = np.argmax(similarity, axis=-1)
    ours = {
        "dq_ca.out": out,
        "dq_ca.sim": similarity.swapaxes(2, 3),
        "dq_ca.argmax": chosen,
        "dq_ca.gathered": gather_by_hand(tokens, chosen),
        "dq_ca.nomask.out": free_out,
        "dq_ca.nomask.sim": free_similarity.swapaxes(2, 3),
    }
    modules.assert_equal(ours, ours)


def gather_by_hand(tokens: dict[str, jax.Array], chosen: np.ndarray) -> np.ndarray:
    """The chosen part (b heads q) of the normalised pixel tokens, heads side by side."""
    feature = np.asarray(tokens["x"] + tokens["x_pos"])
    feature = feature / np.linalg.norm(feature, axis=-1, keepdims=True)
    b, n, c = feature.shape
    parts = feature.reshape(b, n, HEADS, c // HEADS)
    taken = [[parts[i, chosen[i, h], h] for h in range(HEADS)] for i in range(b)]
    return np.stack([np.concatenate(heads, axis=-1) for heads in taken])


def test_equal_and_fully_blocked_tokens_go_to_the_lowest_index(
    tokens: dict[str, jax.Array], discriminative_params: Any
) -> None:
    """All pixels alike: reading any is the same, so gradients tell which one was read."""
    same = tokens | {name: jnp.repeat(tokens[name][:, :1], 15, axis=1) for name in ("x", "x_pos")}

    def read(pixel: jax.Array, blocked: jax.Array | None) -> jax.Array:
        return jnp.sum(discriminate(discriminative_params, same | {"x": pixel}, blocked)[0] ** 2)

    for blocked in (None, jnp.ones((2, 1, 6, 15), bool)):
        touched = np.any(np.asarray(jax.jit(jax.grad(read))(same["x"], blocked)) != 0, axis=(0, 2))
        np.testing.assert_array_equal(touched, np.arange(15) == 0)


def test_gradients_reach_chosen_tokens_only(
    tokens: dict[str, jax.Array], discriminative_params: Any
) -> None:
    def read(pixel: jax.Array) -> tuple[jax.Array, jax.Array]:
        out, similarity = discriminate(discriminative_params, tokens | {"x": pixel}, None)
        return jnp.sum(out**2), similarity

    gradient, similarity = jax.jit(jax.grad(read, has_aux=True))(tokens["x"])
    chosen = np.argmax(similarity, axis=-1)
    for i, touched in enumerate(np.any(np.asarray(gradient) != 0, axis=-1)):
        np.testing.assert_array_equal(np.flatnonzero(touched), np.unique(chosen[i]))


def test_self_attention_equals_recording(modules: Recording, tokens: dict[str, jax.Array]) -> None:
    params = flax_params(
        modules.below("self_attention.w."),
        ("norm", "norm", "layer_norm"),
        ("self_attn", "attend", "attention"),
    )
    out = jax.jit(QuerySelfAttention(HEADS).apply)({"params": params}, tokens["q"], tokens["q_pos"])
    modules.assert_equal({"self_attention.out": out}, ["self_attention.out"])


def test_cross_attention_equals_recording(modules: Recording, tokens: dict[str, jax.Array]) -> None:
    """Pixels read from queries, with and without norm of the reader."""
    x, x_pos, q, q_pos = (tokens[name] for name in ("x", "x_pos", "q", "q_pos"))
    attention = ("cross_attn", "attend", "attention")
    normed = flax_params(
        modules.below("cross_attention_norm.w."), ("norm", "norm", "layer_norm"), attention
    )
    plain = flax_params(modules.below("cross_attention.w."), attention)["attend"]
    attend, attend_normed = (
        jax.jit(module(HEADS).apply) for module in (MultiHeadAttention, MultiHeadCrossAttention)
    )
    ours = {
        "cross_attention_norm.out": attend_normed({"params": normed}, x, x_pos, q, q_pos, None),
        "cross_attention.out": x + attend({"params": plain}, x + x_pos, q + q_pos, q),
    }
    modules.assert_equal(ours, ours)


def test_two_objects_and_background_share_the_pixels() -> None:
    """Pixel by pixel: background, first object, second object, both alike (a tie)."""
    logits = jnp.array([[-9.0, 5.0, 1.0, 3.0], [-9.0, 1.0, 5.0, 3.0]]).reshape(1, 2, 1, 4)
    inside = np.array([[0, 1, 0, 1], [0, 0, 1, 1]], bool)
    np.testing.assert_array_equal(blocked_pixels(logits)[0, :, 0], ~inside)
    np.testing.assert_array_equal(blocked_pixels(logits)[0, :, 1], inside)


@pytest.mark.parametrize("everywhere", [True, False])
def test_queries_with_nothing_to_read_read_everything(everywhere: bool) -> None:
    """An object that fills the image leaves its background queries nothing, and conversely."""
    logits = jnp.full((1, 1, 2, 2), 9.0 if everywhere else -9.0)
    assert not blocked_pixels(logits).any()


def test_saturated_objects_tie_through_the_clamp() -> None:
    """Beyond 1 - 1e-7 both objects count as foreground, whatever their logits."""
    logits = jnp.array([30.0, 60.0]).reshape(1, 2, 1, 1)
    logits = jnp.concatenate([logits, jnp.full((1, 2, 1, 1), -9.0)], axis=-1)
    np.testing.assert_array_equal(blocked_pixels(logits)[0, :, 0], [[False, True]] * 2)


def test_padding_objects_win_no_pixel() -> None:
    logits = jnp.array([[1.0, -9.0], [50.0, 50.0]]).reshape(1, 2, 1, 2)
    blocked = blocked_pixels(logits, jnp.array([[1.0, 0.0]]))
    np.testing.assert_array_equal(blocked[:, :1], blocked_pixels(logits[:, :1]))


def test_objects_of_other_groups_are_not_seen() -> None:
    logits = jax.random.normal(jax.random.key(0), (2, 3, 4, 5)) * 3
    group = jnp.array([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])
    blocked = blocked_pixels(logits, None, group)
    np.testing.assert_array_equal(blocked[:, 1:2], blocked_pixels(logits[:, 1:2]))
    pair = jnp.array([0, 2])
    np.testing.assert_array_equal(blocked[:, pair], blocked_pixels(logits[:, pair]))
    np.testing.assert_array_equal(
        blocked_pixels(logits), blocked_pixels(logits, None, jnp.ones((3, 3)))
    )
