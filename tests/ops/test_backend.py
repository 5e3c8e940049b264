"""Choice between forms of a computation, for attached devices and for others."""

import jax
import jax.numpy as jnp
import pytest

from s3_jax.models.deformable_attention import DeformableAttention, cell_centres
from s3_jax.ops.backend import backend, compiling_for


def test_backend_is_that_of_the_devices_at_hand() -> None:
    assert backend() == jax.default_backend()


def test_compiling_for_ends_with_its_block_also_after_an_error() -> None:
    with pytest.raises(KeyError), compiling_for("tpu"):
        assert backend() == "tpu"
        raise KeyError
    assert backend() == jax.default_backend()


def test_deformable_attention_gathers_on_cpu_and_multiplies_on_tpu() -> None:
    layer = DeformableAttention(num_heads=2)
    x, shapes = jnp.ones((1, 6, 8)), [(2, 3)]

    def program() -> str:
        call = lambda key: layer.init(key, x, cell_centres(shapes), x, shapes)  # noqa: E731
        return str(jax.make_jaxpr(call)(jax.random.key(0)))

    assert "gather" in program()
    with compiling_for("tpu"):
        assert "gather" not in program()
