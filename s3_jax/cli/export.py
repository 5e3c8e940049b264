r"""Write a network as a file that runs with JAX alone, for serving.

  s3 export --checkpoint=checkpoints/s3 --size=480x864 --objects=3 --output=model.s3
  python load_export.py model.s3 frame0.npy masks.npy frame1.npy frame2.npy

The file fixes the frame size and the number of objects. If you have fewer objects, leave the other
masks empty. `s3_jax/propagation/load_export.py` runs the file. It imports nothing from this
project, so you can copy it.

With --split, a server can encode frames on their own, ahead of time or elsewhere, and read and
decode in the order of the video. The masks are the same.

  s3 export --format=onnx --checkpoint=s3_lite --size=480x864 --objects=3 --output=model_onnx

writes encode.onnx, decode.onnx and remember.onnx to a directory, for ONNX Runtime. Reading the
memory between them is left to you (docs/interoperability.md). This needs the package jax2onnx:
pip install 's3_jax[onnx]'.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags, logging

from s3_jax.cli import command
from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Model checkpoint. Required.", required=True)
OUTPUT = flags.DEFINE_string(
    "output", None, "File to write; a directory with --format=onnx. Required.", required=True
)
FORMAT = flags.DEFINE_enum("format", "jax", ["jax", "onnx"], "What will run it.")
SIZE = flags.DEFINE_string("size", "480x864", "Height x width of the frames.")
OBJECTS = flags.DEFINE_integer("objects", 1, "Number of objects.", lower_bound=1)
DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Number type of the computation."
)
PLATFORMS = flags.DEFINE_list("platforms", ["cpu"], "Where it will run: cpu, cuda, rocm, tpu.")
LONG_TERM = flags.DEFINE_bool("long_term", False, "Use long-term memory, for long videos.")
SPLIT = flags.DEFINE_bool(
    "split", False, "Write the step as three programs: encode, read and decode."
)
LOADER = Path(__file__).parents[1] / "propagation" / "load_export.py"


def main() -> None:
    logging.set_verbosity(logging.WARNING)
    from s3_jax.checkpoints.model import load_model
    from s3_jax.propagation.export import ExportConfig

    output = Path(OUTPUT.value)
    if FORMAT.value == "jax" and output.is_dir():
        raise InputError(f"--output={output} is a directory; name a file in it")
    model, variables = load_model(CHECKPOINT.value)
    export = ExportConfig(
        command.frame_size(SIZE.value), OBJECTS.value, DTYPE.value, tuple(PLATFORMS.value),
        PropagationConfig.suiting(model, long_term=LONG_TERM.value), SPLIT.value,
    )  # fmt: skip
    write = _write_onnx if FORMAT.value == "onnx" else _write_jax
    write(output, model, variables, export)


def _write_jax(output: Path, model: Any, variables: Any, export: Any) -> None:
    from s3_jax.propagation.export import write_export

    output.parent.mkdir(parents=True, exist_ok=True)
    _say(output, write_export(output, model, variables, export))
    print("loading it runs its programs: recipients must trust it as they would any program")
    print(f"to run it: python {LOADER} {output} first.npy masks.npy second.npy ...")


def _write_onnx(output: Path, model: Any, variables: Any, export: Any) -> None:
    from s3_jax.propagation.export_onnx import write_onnx

    if SPLIT.value or LONG_TERM.value or PLATFORMS.value != ["cpu"]:
        raise InputError("--format=onnx takes neither --split, --long_term nor --platforms")
    if output.exists() and not output.is_dir():
        raise InputError(f"--output={output} is a file; --format=onnx writes a directory")
    _say(output, write_onnx(output, model, variables, export))


def _say(output: Path, sizes: Mapping[str, int]) -> None:
    parts = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items())
    print(f"{output}: {parts}")
