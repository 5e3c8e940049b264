"""Preparing commands to compile: a cache of programs on disk, and memory given back afterwards."""

import functools
import os
from pathlib import Path

import jax
from absl import logging

from s3_jax.cli.large_pages import give_back_freed_memory, keeps_freed_memory
from s3_jax.errors import reason

VARIABLE = "S3_JAX_CACHE"
DEFAULT = "~/.cache/s3_jax/xla"
# Programs that compile faster than this (seconds) are not worth a file.
_SHORTEST_COMPILATION = 0.1
# From this time on (seconds), the compiler leaves much memory behind.
_LONG_COMPILATION = 1.0


def prepare_compilation() -> Path | None:
    """Set up a command that compiles and runs in little memory, before its first compilation.

    A process that keeps freed memory gives it back after each long compilation, because the
    programs cannot use all of it: it is scattered. The cache is enabled as well.

    Returns:
      The directory of the cache, or None if there is no cache.
    """
    if keeps_freed_memory():
        _watch_compilations()
    return enable_compilation_cache()


@functools.cache
def _watch_compilations() -> None:
    jax.monitoring.register_event_duration_secs_listener(_after_compiling)


def _after_compiling(event: str, duration_secs: float, **_: str | int) -> None:
    if event.endswith("/backend_compile_duration") and duration_secs >= _LONG_COMPILATION:
        give_back_freed_memory()


def enable_compilation_cache() -> Path | None:
    """Enable the cache of compiled programs, so that only a command's first run waits for them.

    The directory is $S3_JAX_CACHE if it is set (an empty value disables the cache), else
    ~/.cache/s3_jax/xla. It may be deleted at any time. A cache that was configured in JAX by other
    means is left unchanged.

    Returns:
      The directory, or None if there is no cache.
    """
    chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if chosen:
        return Path(chosen)
    place = os.environ.get(VARIABLE, DEFAULT)
    if not place:
        return None
    try:
        directory = Path(place).expanduser()
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        logging.warning("no compilation cache: cannot make %s (%s)", place, reason(error))
        return None
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SHORTEST_COMPILATION)
    return directory
