"""Profiles: the times of instructions, by the module to which they belong."""

import importlib.metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from s3_jax.analysis import profile as profiles
from s3_jax.analysis.profile import profile
from s3_jax.errors import InputError


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


def test_a_libtpu_that_would_end_the_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.52")
    with pytest.raises(InputError, match=f"libtpu {profiles.LIBTPU}.*0.0.52 is installed"):
        profile(None, ())


def test_the_libtpu_of_profiles_is_the_pinned_one() -> None:
    pinned = Path(__file__).parents[2].joinpath("requirements-tpu.txt").read_text()
    assert f"libtpu=={profiles.LIBTPU}\n" in pinned
