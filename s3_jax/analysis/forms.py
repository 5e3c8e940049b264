"""Computations that the network implements in two equivalent forms, each compiled for a chip.

One form uses gathers, which suit CPUs and GPUs. The other uses matrix products, which suit matrix
units. Sizes are those of 480 x 864 video (training: 480 x 480) with three objects.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from s3_jax.analysis.chips import Chip
from s3_jax.analysis.estimate import Estimate, OutOfMemory, compile_estimate
from s3_jax.analysis.programs import Traced
from s3_jax.models.deformable_attention import DeformableAttention, cell_centres
from s3_jax.ops.affinity import dense_affinity, listed_affinity
from s3_jax.ops.backend import backend, compiling_for
from s3_jax.ops.selection import take_rows, take_tokens

OBJECTS, QUERIES, HEADS, CHANNELS = 3, 16, 8, 256
H, W = 30, 54
TOP_K, TOKENS = 30, 10_000 + 9 * H * W
FORMS = {"gather": "gpu", "product": "tpu"}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One computation in one form."""

    name: str
    form: str
    outcome: Estimate | OutOfMemory


def compare_forms(chip: Chip, device: jax.Device) -> Iterator[Comparison]:
    """Compile every computation in both forms."""
    place = SingleDeviceSharding(device)
    for name, (function, arguments) in computations().items():
        for form, platform in FORMS.items():
            with compiling_for(platform):
                # A new function object, so the other form's trace is not reused.
                run = jax.jit(
                    lambda *args, function=function: function(*args), in_shardings=place,
                    out_shardings=place,
                )  # fmt: skip
                lowered = run.lower(*arguments)
            yield Comparison(name, form, compile_estimate(Traced(lowered, {}, 1), chip, 1))


def comparison_line(one: Comparison) -> str:
    """Format estimate, roofline, memory, and the kinds of gathers and sorts."""
    head = f"{one.name:44s}{one.form:9s}"
    if isinstance(one.outcome, OutOfMemory):
        return f"{head} does not fit"
    estimate = one.outcome
    kinds = sorted({hazard.kind for hazard in estimate.hazards})
    return (f"{head}{1e3 * estimate.seconds:9.3f} ms{1e3 * estimate.roofline:9.3f} ms"
            f"{estimate.memory.temporaries / 1e6:9.1f} MB  {', '.join(kinds) or '-'}")  # fmt: skip


def computations() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Return the functions to compare, by name, with the shapes of their arguments."""
    half, full = jnp.bfloat16, jnp.float32
    pixels = jax.ShapeDtypeStruct((OBJECTS, 900, HEADS, CHANNELS // HEADS), half)
    chosen = jax.ShapeDtypeStruct((OBJECTS, QUERIES, HEADS), jnp.int32)
    frames = jax.ShapeDtypeStruct((OBJECTS, 7, 900, CHANNELS), half)
    numbers = jax.ShapeDtypeStruct((OBJECTS, 3), jnp.int32)
    queries = jax.ShapeDtypeStruct((H * W, 130), full)
    tokens = jax.ShapeDtypeStruct((TOKENS, 130), full)
    values = jax.ShapeDtypeStruct((OBJECTS, TOKENS, CHANNELS), half)
    features = jax.ShapeDtypeStruct((1, H * W, 768), half)
    maps = jax.ShapeDtypeStruct((1, 5 * H * W, 768), half)
    layer = DeformableAttention(num_heads=12, dtype=half)
    centres = cell_centres([(2 * H, 2 * W), (H, W)])
    weights = jax.eval_shape(
        lambda: layer.init(jax.random.key(0), *_zeros(maps, centres, features), [(H, W)])
    )
    return {
        "most similar pixels, and gradient": (_with_gradient(take_tokens), (pixels, chosen)),
        "reference frames, and gradient": (_with_gradient(take_rows), (frames, numbers)),
        "top-30 of 24,580 tokens, readout": (_read, (queries, tokens, values)),
        "deformable attention": (
            lambda w, q, f: layer.apply(w, q, centres, f, [(H, W)]), (weights, maps, features),
        ),
    }  # fmt: skip


def _with_gradient(take: Callable[..., Any]) -> Callable[..., Any]:
    def loss(values: Any, index: Any) -> Any:
        """Return a scalar whose gradient depends on the values taken."""
        return jnp.sum(jnp.sin(take(values, index).astype(jnp.float32)))

    return lambda values, index: jax.value_and_grad(lambda v: loss(v, index))(values)


def _read(queries: Any, tokens: Any, values: Any) -> Any:
    affinity_of = dense_affinity if backend() == "tpu" else listed_affinity
    affinity: Any = affinity_of(queries, tokens, TOP_K)
    return jax.lax.map(affinity.readout, values), affinity.usage(TOKENS)


def _zeros(*shapes: Any) -> list[Any]:
    return [jnp.zeros(x.shape, x.dtype) if hasattr(x, "dtype") else x for x in shapes]
