"""Shapes of a network's variables, kept on disk beside JAX's compiled programs.

Without the cache, every command that loads a network traces it, which takes a second or more.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path

import jax

from s3_jax.config import ModelConfig, to_dict
from s3_jax.files import replacing
from s3_jax.models.variables import flatten, variable_shapes

Shapes = dict[str, dict[str, tuple[int, ...]]]

_PACKAGE = Path(__file__).parents[1]
_SOURCES = ("config.py", "models", "ops")  # sources of the built-in networks


@functools.lru_cache(maxsize=8)  # without a cache on disk, large networks take seconds
def network_shapes(config: ModelConfig) -> Shapes:
    """Return collection -> slash-separated path -> shape of a network's variables.

    They come from the compilation cache, if it has an entry for the same sources. A network with
    parts from outside the package is traced every time.

    Raises:
      InputError: no network can be built with these settings.
    """
    path = _path(config)
    known = _read(path) if path else None
    if known is not None:
        return known
    tree = variable_shapes(config)
    shapes = {name: {key: x.shape for key, x in flatten(tree[name]).items()} for name in tree}
    if path:
        with contextlib.suppress(OSError), replacing(path) as temporary:
            temporary.write_text(json.dumps(shapes))
    return shapes


def _path(config: ModelConfig) -> Path | None:
    directory = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    settings = to_dict(config)
    if not directory or "://" in directory or any(":" in word for word in _words(settings)):
        return None
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + _sources_digest())
    return Path(directory) / f"shapes-{key.hexdigest()[:32]}.json"


def _words(settings: object) -> Iterator[str]:
    """Yield every string in nested settings; one with a colon refers to a package."""
    if isinstance(settings, str):
        yield settings
    elif isinstance(settings, dict):
        for value in settings.values():
            yield from _words(value)
    elif isinstance(settings, list | tuple):
        for value in settings:
            yield from _words(value)


@functools.cache
def _sources_digest() -> bytes:
    digest = hashlib.sha256(importlib.metadata.version("flax").encode())
    for name in _SOURCES:
        for path in sorted(_PACKAGE.joinpath(name).rglob("*.py")) or [_PACKAGE / name]:
            digest.update(path.read_bytes())
    return digest.digest()


def _read(path: Path) -> Shapes | None:
    try:
        content = json.loads(path.read_text())
        return {
            collection: {key: tuple(shape) for key, shape in shapes.items()}
            for collection, shapes in content.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return None
