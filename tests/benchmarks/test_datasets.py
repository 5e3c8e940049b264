"""The table of benchmarks against the protocol's own table."""

import pytest

from s3_jax.benchmarks.datasets import BENCHMARKS
from s3_jax.config import PropagationConfig

# short side, long-term, mem_every, package; plus: short side, mem_every, max_mem_frames
TABLE = {
    "davis2016-val": (480, False, 5, None, (720, 3, 10)),
    "davis2017-val": (480, False, 5, None, (720, 3, 10)),
    "davis2017-test-dev": (480, False, 5, "videos", (720, 3, 10)),
    "youtubevos2018-val": (480, False, 5, "annotations", (600, 5, 10)),
    "youtubevos2019-val": (480, False, 5, "annotations", (600, 5, 10)),
    "mose-val": (480, False, 5, "videos", (720, 3, 10)),
    "lvos-val": (600, True, 5, "annotations", None),
    "lvos-test": (600, True, 5, "annotations", None),
    "burst-val": (600, True, 10, "burst", None),
    "burst-test": (600, True, 10, "burst", None),
    "vost-val": (480, False, 5, None, None),
    "vost-test": (480, False, 5, "videos", None),
    "generic": (-1, True, 5, None, None),
}


def test_every_benchmark_is_in_the_table():
    assert list(BENCHMARKS) == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_settings_are_those_of_the_protocol(name):
    short_side, long_term, mem_every, package, plus = TABLE[name]
    benchmark = BENCHMARKS[name]
    config = PropagationConfig(**benchmark.config.propagation())
    assert benchmark.config.short_side == short_side
    assert (config.long_term, config.mem_every, config.max_mem_frames) == (long_term, mem_every, 5)
    assert benchmark.package == package
    found = benchmark.plus
    assert (plus is None) == (found is None)
    if found:
        config = PropagationConfig(**found.propagation())
        assert plus == (found.short_side, config.mem_every, config.max_mem_frames)
        assert not config.long_term
