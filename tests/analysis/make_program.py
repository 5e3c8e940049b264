"""Write program.hlo, a small program compiled for four TPU v5e, which the tests read.

  python -m tests.analysis.make_program      (needs requirements-tpu.txt)

A loop of five rounds, each a convolution, a product on a condition, and a gather; after it a sort
and a sum over replicas.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax

from s3_jax.analysis.topology import open_topology

PROGRAM = Path(__file__).parent / "program.hlo"
ROOT = Path(__file__).parent.parent.parent
ROUNDS, SIDE, CHANNELS, ROWS = 5, 16, 128, 64


def step(kernel: jax.Array, x: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x: (1, SIDE, SIDE, CHANNELS) of this replica; kernel: (3, 3, CHANNELS, CHANNELS)."""

    def one_round(x: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
        with jax.named_scope("encoder"):
            x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME",
                                         dimension_numbers=("NHWC", "HWIO", "NHWC"))  # fmt: skip
        x = lax.cond(jnp.sum(x) > 0, lambda x: jnp.tanh(x @ kernel[1, 1]), lambda x: x, x)
        return x, x.reshape(-1, CHANNELS)[index]

    x, rows = lax.scan(one_round, x, index)
    ranked = lax.sort(jnp.sum(rows, axis=-1))
    return x, lax.psum(ranked, "replicas")


def main() -> None:
    devices = open_topology("v5e:2x2").devices
    mapped = jax.pmap(step, axis_name="replicas", in_axes=(None, 0, 0), devices=devices)
    arguments = (
        jax.ShapeDtypeStruct((3, 3, CHANNELS, CHANNELS), jnp.bfloat16),
        jax.ShapeDtypeStruct((len(devices), 1, SIDE, SIDE, CHANNELS), jnp.bfloat16),
        jax.ShapeDtypeStruct((len(devices), ROUNDS, ROWS), jnp.int32),
    )
    text = mapped.lower(*arguments).compile().as_text() or ""
    PROGRAM.write_text(text.replace(f"{ROOT}/", ""))


if __name__ == "__main__":
    main()
