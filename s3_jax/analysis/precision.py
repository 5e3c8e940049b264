"""Effect of computing in bfloat16, stage by stage of a frame.

Each result has two errors: `own` with float32 inputs to its stage, and `chain` with all earlier
stages in bfloat16 too. Both are root mean squares relative to that of the float32 result.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from s3_jax.config import ModelConfig
from s3_jax.memory.object_memory import init_object_memory
from s3_jax.memory.read import read_one_frame
from s3_jax.models.key_projection import Key
from s3_jax.models.s3 import S3, EncodedMask, ImageFeatures
from s3_jax.propagation.frame import Network, Objects, remember, segment

Results = dict[str, Any]
Call = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class StageError:
    """Errors of one result of a stage; `largest` is the largest absolute error of the chain."""

    stage: str
    result: str
    own: float
    chain: float
    largest: float


class Stage(NamedTuple):
    """Inputs and results of a stage."""

    inputs: tuple[Any, ...]
    results: Results


def stage_errors(
    config: ModelConfig,
    variables: Any,
    image: Float[Array, "1 H W 3"],
    masks: Float[Array, "1 k H W"],
) -> list[StageError]:
    """Return the errors for a frame that is written to memory with its masks and then segmented."""
    network = Network(S3(config), variables)
    call32, call16 = (_caller(config, variables, dtype) for dtype in (jnp.float32, jnp.bfloat16))
    exact, chain = (_frame(network, call, image, masks) for call in (call32, call16))
    errors = []
    for name, stage in exact.items():
        own = _results(name, call16(name, *stage.inputs))
        for key, value in stage.results.items():
            errors.append(
                StageError(
                    name,
                    key,
                    relative_error(own[key], value),
                    relative_error(chain[name].results[key], value),
                    _largest(chain[name].results[key], value),
                )
            )
    return errors


def relative_error(value: Any, exact: Any) -> float:
    """Return the root mean square of the difference, relative to that of the exact array."""
    a, b = (np.asarray(x, np.float64) for x in (value, exact))
    size = np.sqrt(np.mean(b**2))
    return float(np.sqrt(np.mean((a - b) ** 2)) / size) if size else float(np.any(a != b))


def _largest(value: Any, exact: Any) -> float:
    return float(np.max(np.abs(np.asarray(value, np.float64) - np.asarray(exact, np.float64))))


def _frame(
    network: Network, call: Call, image: Float[Array, "1 H W 3"], masks: Float[Array, "1 k H W"]
) -> dict[str, Stage]:
    """Process a frame with every stage computed by `call`, and record the stages."""
    stages: dict[str, Stage] = {}

    def take(name: str, *inputs: Any) -> Any:
        """Compute a stage, and record its inputs and results."""
        stages[name] = Stage(inputs, {})  # registered early, for nested calls
        result = call(name, *inputs)
        stages[name].results.update(_results(name, result))
        return result

    def intercept(
        method: Call, args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        """Record the network's method if it is a stage that was not recorded yet."""
        name = context.method_name
        if name not in _RESULTS or name in stages or not isinstance(context.module, S3):
            return method(*args, **kwargs)
        # The arguments after the arrays, such as chunk sizes, have their defaults.
        return take(name, *itertools.takewhile(lambda x: isinstance(x, tuple | jax.Array), args))

    def write(value: Array) -> Array:
        """Return the values, which stand for the memory of this one frame."""
        return value

    config, (b, k) = network.model.config, masks.shape[:2]
    with nn.intercept_methods(intercept):
        features = network(S3.encode_image, image)
        h, w, c = features.pix_feat.shape[1:]
        queries = init_object_memory(b, k, config.num_queries, c)
        objects = Objects(jnp.zeros((b, k, h, w, c)), queries, masks)
        objects, value = remember(network, image, features.pix_feat, objects, write)
        key = features.key
        segment(network, features, objects,
                lambda query: (take("read_memory", key, value, query), value),
                jnp.ones((b, k)))  # fmt: skip
    return stages


def _caller(config: ModelConfig, variables: Any, dtype: Any) -> Call:
    """Return a function that computes a stage by name in a dtype; memory is always float32."""
    model = S3(config, dtype=dtype)

    def call(name: str, *inputs: Any) -> Any:
        """Compute the stage of this name."""
        if name == "read_memory":
            return read_one_frame(*inputs)
        return model.apply(variables, *inputs, method=name)

    return jax.jit(call, static_argnums=0)


def _results(name: str, result: Any) -> Results:
    """Return a stage's results by name."""
    return dict(zip(_RESULTS[name], jax.tree.leaves(result), strict=False))


# Stages by the network's method, with their results in order; only the first one for `finish`.
_RESULTS: dict[str, tuple[str, ...]] = {
    "encode_image": (*(name for name in ImageFeatures._fields if name != "key"), *Key._fields),
    "encode_mask": EncodedMask._fields,
    "update_sensory_deep": ("sensory",),
    "read_memory": ("readout",),
    "fuse_pixels": ("fused",),
    "transform_objects": ("pixel", "query logits"),
    "decode_mask": ("logits", "sensory input"),
    "finish": ("probability",),
}
