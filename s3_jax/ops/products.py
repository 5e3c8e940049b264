"""Matrix products whose operands may be rounded to bfloat16 while everything else is float32.

CPUs with bfloat16 instructions multiply such operands nearly twice as fast as float32 operands, and
sum in float32. Everything else, including convolutions, is slower in bfloat16 there.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
from absl import logging
from jax import lax
from jaxtyping import Array, DTypeLike, Float

from s3_jax.ops.backend import backend

_operands: contextvars.ContextVar[DTypeLike | None] = contextvars.ContextVar(
    "operands", default=None
)
_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86, x86, Arm


@contextlib.contextmanager
def operands(dtype: DTypeLike | None) -> Iterator[None]:
    """Round operands of products traced in this block to `dtype`; None does not round."""
    token = _operands.set(dtype)
    try:
        yield
    finally:
        _operands.reset(token)


def product(x: Float[Array, "... i"], matrix: Float[Array, "i o"]) -> Float[Array, "... o"]:
    """Multiply x by a matrix, in the dtype of x.

    `operands` sets how operands are rounded; sums are float32.
    """
    return _contract(x, matrix, axis=0)


def product_with_rows(x: Float[Array, "... i"], rows: Float[Array, "o i"]) -> Float[Array, "... o"]:
    """Multiply x by the transpose of `rows` as `product` does, without transposing them.

    Rounded operands that are transposed first are multiplied at half the speed on CPUs.
    """
    return _contract(x, rows, axis=1)


def _contract(x: Array, matrix: Array, axis: int) -> Array:
    """Sum over the last axis of x and one axis of the matrix."""
    numbers = (((x.ndim - 1,), (axis,)), ((), ()))
    narrow = _operands.get()
    if narrow is None or x.dtype != jnp.float32:
        return lax.dot_general(x, matrix, numbers)
    return lax.dot_general(
        x.astype(narrow), matrix.astype(narrow), numbers, preferred_element_type=jnp.float32
    )


def computing_types(dtype: DTypeLike) -> tuple[jnp.dtype, jnp.dtype | None]:
    """Return the type to compute in for a requested `dtype`, and the type of product operands.

    On a CPU, bfloat16 means float32 with bfloat16 operands, or plain float32 if the CPU has no
    instructions for them.
    """
    asked, wide = jnp.dtype(dtype), jnp.dtype(jnp.float32)
    if asked != jnp.bfloat16 or backend() != "cpu":
        return asked, None
    if multiplies_bfloat16():
        return wide, asked
    logging.warning("this CPU has no instructions for bfloat16: computing in float32")
    return wide, None


def multiplies_bfloat16() -> bool:
    """Return True if this machine's CPU has instructions that multiply bfloat16 numbers."""
    try:
        return bool(_INSTRUCTIONS & set(Path("/proc/cpuinfo").read_text().split()))
    except OSError:
        return False
