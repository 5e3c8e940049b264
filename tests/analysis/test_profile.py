"""Profiles: instructions' times, under the module they come from."""

import jax
import jax.numpy as jnp
import pytest

from s3_jax.analysis.profile import profile


def test_time_is_summed_under_the_modules_that_take_it() -> None:
    @jax.jit
    def program(x: jax.Array) -> jax.Array:
        with jax.named_scope("heavy"):
            y = x @ x @ x
        with jax.named_scope("light"):
            return jnp.sort(y[:2])

    x = jnp.ones((512, 512)) / 512
    places = profile(program.lower(x).compile(), (x,), runs=2)
    assert places[0].module == "heavy"
    assert places[0].direction == "forward"
    assert places[0].instructions >= 2
    assert "light" in {place.module for place in places}
    assert sum(place.share for place in places) == pytest.approx(1)
    assert [p.seconds for p in places] == sorted((p.seconds for p in places), reverse=True)
