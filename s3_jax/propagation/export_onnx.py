"""Export of a network to ONNX, through jax2onnx (`pip install "s3_jax[onnx]"`).

    encode.onnx    frame (h w 3) uint8 -> features by name (`Encoded`)
    decode.onnx    skip8, skip4, pix_feat, readout, sensory, last_mask, object_value
                   -> probabilities (1 + objects h w), last_mask, sensory
    remember.onnx  frame, pix_feat, last_mask, sensory -> value, summaries, sensory

These are the steps of `propagation/frame.py` around the key/value memory, which the caller keeps:
the readout is the result of `read` on the values (docs/network.md, section 4.2), and the object
memory is the sum of the summaries. Frame size and number of objects are fixed; the batch size is 1.

JAX traces every program first, and jax2onnx converts the trace. If jax2onnx did the tracing, it
would replace Flax functions with ones that take fewer arguments.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array, Float, UInt8

from s3_jax.config import ModelConfig
from s3_jax.errors import InputError
from s3_jax.files import replacing
from s3_jax.models.s3 import S3, ImageFeatures
from s3_jax.ops.backend import compiling_for
from s3_jax.propagation.export import ExportConfig
from s3_jax.propagation.frame import Network, Variables
from s3_jax.propagation.geometry import network_geometry, prepare_image, restore
from s3_jax.propagation.state import STRIDE

Arrays = dict[str, Array]
Shapes = dict[str, jax.ShapeDtypeStruct]
UNUSED: Any = None  # features that decoding does not use


class OnnxPrograms:
    """Functions from named arrays to named arrays, all float32 except the frame."""

    def __init__(self, model: ModelConfig, variables: Variables, config: ExportConfig):
        self._network = Network(S3(model), variables)
        self._geometry = network_geometry(config.size, model)
        self._objects = config.objects
        self._frame = jax.ShapeDtypeStruct((*config.size, 3), jnp.uint8)

    def encode(self, frame: UInt8[Array, "h w 3"]) -> Arrays:
        """Return the frame's features by name."""
        features = self._network(S3.encode_image, prepare_image(frame, self._geometry))
        return features._asdict() | features.key._asdict()

    def decode(
        self,
        skip8: Float[Array, "1 h8 w8 c8"],
        skip4: Float[Array, "1 h4 w4 c4"],
        pix_feat: Float[Array, "1 h w c"],
        readout: Float[Array, "1 k h w c"],
        sensory: Float[Array, "1 k h w c"],
        last_mask: Float[Array, "1 k H W"],
        object_value: Float[Array, "1 k q c"],
    ) -> Arrays:
        """Return probabilities at the frames' size, and mask and sensory memory for the next frame.

        Args:
          object_value: the sum of the memory frames' summaries, divided by its last channel,
            which is left out.
        """
        features = ImageFeatures(UNUSED, UNUSED, UNUSED, skip8, skip4, pix_feat, UNUSED)
        found = self._network(S3.segment, features, readout, sensory, last_mask, object_value)
        return {
            "probabilities": restore(found.prob[0], self._geometry),
            "last_mask": found.prob[:, 1:],
            "sensory": self._network(S3.update_sensory, sensory, found.decoded.sensory_input),
        }

    def remember(
        self,
        frame: UInt8[Array, "height width 3"],
        pix_feat: Float[Array, "1 h w c"],
        last_mask: Float[Array, "1 k H W"],
        sensory: Float[Array, "1 k h w c"],
    ) -> Arrays:
        """Return values for the key/value memory, object summaries, and sensory memory."""
        image = prepare_image(frame, self._geometry)
        encoded = self._network(S3.encode_mask, image, pix_feat, last_mask)
        sensory = self._network(S3.update_sensory_deep, sensory, encoded.value)
        return {"value": encoded.value, "summaries": encoded.summaries, "sensory": sensory}

    def calls(self) -> dict[str, tuple[Callable[..., Arrays], Shapes]]:
        """Return every program with the shapes of its inputs."""
        height, width = self._geometry.padded
        k, c = self._objects, self._network.model.config.width
        queries = self._network.model.config.num_queries
        features = jax.eval_shape(self.encode, self._frame)
        per_pixel = _shape(1, k, height // STRIDE, width // STRIDE, c)
        memory = {"sensory": per_pixel, "last_mask": _shape(1, k, height, width)}
        skips = {name: features[name] for name in ("skip8", "skip4", "pix_feat")}
        decoded = skips | {"readout": per_pixel, "object_value": _shape(1, k, queries, c)} | memory
        seen = {"frame": self._frame, "pix_feat": features["pix_feat"]}
        return {
            "encode": (self.encode, {"frame": self._frame}),
            "decode": (self.decode, decoded),
            "remember": (self.remember, seen | memory),
        }


def write_onnx(
    directory: Path, model: ModelConfig, variables: Variables, config: ExportConfig
) -> dict[str, int]:
    """Write encode.onnx, decode.onnx and remember.onnx.

    Returns:
      The number of bytes of each.

    Raises:
      InputError: the settings ask for a type other than float32.
    """
    if config.dtype != "float32":
        raise InputError(f"ONNX programs compute in float32, not in {config.dtype}")
    sizes = {}
    for name, (function, shapes) in OnnxPrograms(model, variables, config).calls().items():
        content = convert(function, shapes)
        directory.mkdir(parents=True, exist_ok=True)
        with replacing(directory / f"{name}.onnx") as temporary:
            temporary.write_bytes(content)
        sizes[f"{name}.onnx"] = len(content)
    return sizes


def convert(function: Callable[..., Arrays], shapes: Mapping[str, jax.ShapeDtypeStruct]) -> bytes:
    """Convert a function from named arrays to named arrays to an ONNX model."""
    from jax2onnx import to_onnx

    with compiling_for("cpu"):  # forms without operations that ONNX Runtime lacks
        traced, outputs = jax.make_jaxpr(function, return_shape=True)(**shapes)
    # Names in the order in which JAX flattens a dictionary.
    names, results = sorted(shapes), sorted(outputs)
    evaluate = jaxpr_as_fun(traced)
    converted = to_onnx(
        lambda *arrays: tuple(evaluate(*arrays)),
        [shapes[name] for name in names],
        model_name="s3",
        input_names=[f"{name}_in" if name in results else name for name in names],
        output_names=results,
    )
    return converted.SerializeToString()


def _shape(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
