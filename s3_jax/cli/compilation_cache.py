"""Cache of compiled programs on disk, so that only a command's first run waits for the compiler."""

import os
from pathlib import Path

import jax
from absl import logging

from s3_jax.errors import reason

VARIABLE = "S3_JAX_CACHE"
DEFAULT = "~/.cache/s3_jax/xla"
# Programs that compile faster than this (seconds) are not worth a file.
_SHORTEST_COMPILATION = 0.1


def enable_compilation_cache() -> Path | None:
    """Enable the cache for a command; call this before the first compilation.

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
