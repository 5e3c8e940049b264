"""Values that attentions offer for pictures are found wherever they are sown."""

import jax.numpy as jnp
import pytest

from s3_jax.models.object_attention import offered_similarity

SIMILARITY = jnp.zeros((1, 2, 3, 4))


@pytest.mark.parametrize(
    "parts",
    [
        {"similarity": (SIMILARITY,)},
        {"attend": {"similarity": (SIMILARITY,)}},
        {"norm": {"other": (1,)}, "deep": {"er": {"similarity": (SIMILARITY,)}}},
    ],
)
def test_similarity_is_found_in_the_attention_and_its_parts(parts):
    assert offered_similarity({"read_from_pixel": parts}) is SIMILARITY


@pytest.mark.parametrize("block", [{}, {"read_from_pixel": {"attend": {"weights": (1,)}}}])
def test_nothing_is_found_where_nothing_is_offered(block):
    assert offered_similarity(block) is None
