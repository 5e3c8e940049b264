"""Programs compiled by one run are found by the next; the compiler's memory is given back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from s3_jax.cli import large_pages

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import jax
from s3_jax.cli.compilation import prepare_compilation
print(prepare_compilation(), jax.config.jax_compilation_cache_dir)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
jax.jit(lambda x: (x @ x).sum())(jax.numpy.ones((8, 8)))
print(any(event.endswith("cache_hits") for event in hits))
"""


FREEING = """
import jax
from s3_jax.cli import compilation
freed = []
give_back = compilation.give_back_freed_memory
compilation.give_back_freed_memory = lambda: freed.append(give_back())
compilation._LONG_COMPILATION = 0
compilation.prepare_compilation()
compilation.prepare_compilation()
jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((3,), "float32")).compile()
print(len(freed))
"""


def run(**environment: str) -> tuple[str, str]:
    names = ("S3_JAX_CACHE", "JAX_COMPILATION_CACHE_DIR")
    inherited = {key: value for key, value in os.environ.items() if key not in names}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=inherited | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    directory, hit = result.stdout.splitlines()
    return directory, hit


def test_the_second_run_finds_the_first_ones_programs(tmp_path):
    place = str(tmp_path / "deep" / "cache")
    assert run(S3_JAX_CACHE=place) == (f"{place} {place}", "False")
    assert run(S3_JAX_CACHE=place) == (f"{place} {place}", "True")


def test_the_default_is_in_the_home_directory(tmp_path):
    place = tmp_path / ".cache" / "s3_jax" / "xla"
    assert run(HOME=str(tmp_path))[0] == f"{place} {place}"
    assert any(place.iterdir())


def test_it_can_be_off_elsewhere_or_impossible(tmp_path):
    assert run(S3_JAX_CACHE="") == ("None None", "False")
    other = str(tmp_path / "other")
    assert run(JAX_COMPILATION_CACHE_DIR=other)[0] == f"{other} {other}"
    (tmp_path / "file").write_text("")
    assert run(S3_JAX_CACHE=str(tmp_path / "file" / "x")) == ("None None", "False")


@pytest.mark.parametrize("kept", [True, False])
def test_memory_that_a_process_keeps_is_given_back_after_compilations(kept):
    inherited = {key: value for key, value in os.environ.items() if key != large_pages.VARIABLE}
    result = subprocess.run(
        [sys.executable, "-c", FREEING],
        cwd=ROOT,
        env=inherited
        | {"JAX_PLATFORMS": "cpu", "S3_JAX_CACHE": ""}
        | ({large_pages.VARIABLE: large_pages.LARGE_PAGES} if kept else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(result.stdout) == kept
