"""Kind of device that programs are made for, which chooses between equal forms of a computation.

By default it is that of the devices at hand. A caller that compiles for devices that are not
attached uses `compiling_for`.
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
    """Make functions traced in this block take the form that is best on `platform`.

    Functions that jax.jit has traced before are not traced again: jit them inside the block.
    """
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)
