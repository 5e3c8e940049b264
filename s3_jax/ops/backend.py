"""Backend that programs are compiled for; it selects among equivalent forms of a computation.

The default is the backend of the attached devices. Use `compiling_for` to compile for others.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_target: contextvars.ContextVar[str | None] = contextvars.ContextVar("target", default=None)


def backend() -> str:
    """Return "cpu", "gpu" or "tpu"."""
    return _target.get() or jax.default_backend()


@contextlib.contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """Use the forms that are best on `platform` in functions that are traced in this block.

    Functions that jax.jit has already traced are not traced again: jit them inside the block.
    """
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)
