"""Backend that programs are compiled for, which selects among equivalent forms of a computation.

By default it is that of the attached devices. To compile for other devices, use `compiling_for`.
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
    """Give functions that are traced in this block the forms that are best on `platform`.

    Functions that jax.jit has already traced are not traced again: jit them inside the block.
    """
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)
