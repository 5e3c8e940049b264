r"""Write a network as a file that runs with JAX alone, for serving.

  s3 export --checkpoint=checkpoints/s3 --size=480x864 --objects=3 --output=model.s3
  python load_export.py model.s3 frame0.npy masks.npy frame1.npy frame2.npy

The file fixes the frame size and the number of objects. If you have fewer objects, leave the other
masks empty. `s3_jax/propagation/load_export.py` runs the file. It imports nothing from this
project, so you can copy it.
"""

from pathlib import Path

from absl import flags, logging

from s3_jax.cli import command
from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError

CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Model checkpoint. Required.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "File to write. Required.", required=True)
SIZE = flags.DEFINE_string("size", "480x864", "Height x width of the frames.")
OBJECTS = flags.DEFINE_integer("objects", 1, "Number of objects.", lower_bound=1)
DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Number type of the computation."
)
PLATFORMS = flags.DEFINE_list("platforms", ["cpu"], "Where it will run: cpu, cuda, rocm, tpu.")
LONG_TERM = flags.DEFINE_bool("long_term", False, "Use long-term memory, for long videos.")
LOADER = Path(__file__).parents[1] / "propagation" / "load_export.py"


def main() -> None:
    logging.set_verbosity(logging.WARNING)
    from s3_jax.checkpoints.model import load_model
    from s3_jax.propagation.export import ExportConfig, write_export

    output = Path(OUTPUT.value)
    if output.is_dir():
        raise InputError(f"--output={output} is a directory; name a file in it")
    export = ExportConfig(
        command.frame_size(SIZE.value), OBJECTS.value, DTYPE.value, tuple(PLATFORMS.value),
        PropagationConfig(long_term=LONG_TERM.value),
    )  # fmt: skip
    config, variables = load_model(CHECKPOINT.value)
    output.parent.mkdir(parents=True, exist_ok=True)
    sizes = write_export(output, config, variables, export)
    parts = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items())
    print(f"{output}: {parts}")
    print("its programs run where it is loaded: whoever gets it has to trust it like any program")
    print(f"to run it: python {LOADER} {output} first.npy masks.npy second.npy ...")
