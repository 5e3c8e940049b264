"""What computing in bfloat16 changes, stage by stage of a frame.

Two errors per result: `own`, of a stage given float32 inputs, and `chain`, after all stages before
it ran in bfloat16 too. Both are root mean squares relative to the float32 result's.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from s3_jax.config import ModelConfig
from s3_jax.memory.object_memory import object_values
from s3_jax.memory.read import read_frames
from s3_jax.models.key_projection import Key
from s3_jax.models.s3 import S3, ImageFeatures

Results = dict[str, Any]
Call = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class StageError:
    """Errors of one result of a stage; largest: absolute, in the chain."""

    stage: str
    result: str
    own: float
    chain: float
    largest: float


def stage_errors(
    config: ModelConfig,
    variables: Any,
    image: Float[Array, "1 H W 3"],
    masks: Float[Array, "1 k H W"],
) -> list[StageError]:
    """For a frame that enters the memory with its masks and is then segmented."""
    call32, call16 = (_caller(config, variables, dtype) for dtype in (jnp.float32, jnp.bfloat16))
    exact: Results = {"image": image, "masks": masks}
    chain: Results = dict(exact)
    errors = []
    for name, stage in _STAGES.items():
        own = stage(call16, exact)
        chain |= stage(call16, chain)
        results = stage(call32, exact)
        exact |= results
        for key, value in results.items():
            errors.append(
                StageError(
                    name, key, relative_error(own[key], value), relative_error(chain[key], value),
                    _largest(chain[key], value),
                )
            )  # fmt: skip
    return errors


def relative_error(value: Any, exact: Any) -> float:
    """Root mean square of the difference, relative to that of the exact array."""
    a, b = (np.asarray(x, np.float64) for x in (value, exact))
    size = np.sqrt(np.mean(b**2))
    return float(np.sqrt(np.mean((a - b) ** 2)) / size) if size else float(np.any(a != b))


def _largest(value: Any, exact: Any) -> float:
    return float(np.max(np.abs(np.asarray(value, np.float64) - np.asarray(exact, np.float64))))


def _caller(config: ModelConfig, variables: Any, dtype: Any) -> Call:
    model = S3(config, dtype=dtype)
    return jax.jit(
        lambda method, *args: model.apply(variables, *args, method=method), static_argnums=0
    )


def _encode_image(call: Call, x: Results) -> Results:
    features = call(S3.encode_image, x["image"])._asdict()
    key: Key = features.pop("key")
    return features | key._asdict()


def _encode_mask(call: Call, x: Results) -> Results:
    return call(S3.encode_mask, x["image"], x["pix_feat"], x["masks"])._asdict()


def _update_deep(call: Call, x: Results) -> Results:
    empty = jnp.zeros(x["value"].shape, jnp.float32)
    return {"sensory": call(S3.update_sensory_deep, empty, x["value"])}


def _read(call: Call, x: Results) -> Results:
    """The frame reads the memory that it has just written."""
    del call  # memory computes in float32 and gives what its values are stored in
    b, h, w, channels = x["key"].shape
    flat = lambda name: x[name].reshape(b, h * w, channels)  # noqa: E731
    value = x["value"]
    tokens = value.reshape(*value.shape[:2], 1, h * w, value.shape[-1])
    readout = read_frames(
        flat("key")[:, None], x["shrinkage"].reshape(b, 1, h * w), tokens, jnp.ones((b, 1), bool),
        flat("key"), flat("selection"),
    )  # fmt: skip
    return {"readout": readout.reshape(value.shape)}


def _fuse(call: Call, x: Results) -> Results:
    fused = call(S3.fuse_pixels, x["pix_feat"], x["readout"], x["sensory"], x["masks"])
    return {"fused": fused}


def _transform(call: Call, x: Results) -> Results:
    out = call(S3.transform_objects, x["fused"], object_values(x["summaries"]))
    return {"pixel": out.pixel, "query logits": out.logits}


def _decode(call: Call, x: Results) -> Results:
    key = Key(*(x[name] for name in Key._fields))
    names = (name for name in ImageFeatures._fields if name != "key")
    features = ImageFeatures(**{name: x[name] for name in names}, key=key)
    decoded = call(S3.decode_mask, features, x["pixel"], x["sensory"])
    return {"logits": decoded.logits, "sensory input": decoded.sensory_input}


def _finish(call: Call, x: Results) -> Results:
    prob, _ = call(S3.finish, x["logits"])
    return {"probability": prob}


_STAGES: dict[str, Callable[[Call, Results], Results]] = {
    "encode_image": _encode_image,
    "encode_mask": _encode_mask,
    "update_sensory_deep": _update_deep,
    "read_memory": _read,
    "fuse_pixels": _fuse,
    "transform_objects": _transform,
    "decode_mask": _decode,
    "finish": _finish,
}
