"""The kind of device that programs are made for: it chooses between equal forms of a computation.

Usually that of the devices at hand. Who compiles for devices that are not attached says so with
`compiling_for`.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_target: contextvars.ContextVar[str | None] = contextvars.ContextVar("target", default=None)


def backend() -> str:
    """One of "cpu", "gpu" and "tpu"."""
    return _target.get() or jax.default_backend()


@contextlib.contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """Functions traced in this block take the form that is best on `platform`.

    What jax.jit has traced before is not traced again: make the jitted function inside the block.
    """
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)
