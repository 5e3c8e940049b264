r"""Measure communication and memory of programs over several devices, from the compiled programs.

  s3 bench devices --devices=4 --model=s3_resnet18 --size=128x192
  s3 bench devices --devices=4 --model=s3_lite --crop=96 --batch_size=4

Programs:
  video       one video per device under a NamedSharding: one frame (step), or several frames in one
              program (scan)
  training    a training step in the three forms of --config.devices

Columns:
  collectives   instructions that exchange data between devices
  state         what one device holds between steps: parameters, optimizer and statistics, or
                parameters and a video's memory
  temporaries   what it needs in addition within a step

Nothing is run. The devices are virtual ones on this machine's CPU.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
from absl import flags, logging

from s3_jax.cli import command
from s3_jax.config import MODELS, PropagationConfig

if TYPE_CHECKING:
    from s3_jax.analysis.spreading import SpreadProgram

DEVICES = flags.DEFINE_integer("devices", 4, "Number of devices.", lower_bound=2)
MODEL = flags.DEFINE_enum("model", "s3_resnet18", sorted(MODELS), "Network.")
SIZE = flags.DEFINE_string("size", "128x192", "Height x width of the videos' frames.")
OBJECTS = flags.DEFINE_integer("objects", 2, "Objects in a video.", lower_bound=1)
LONG_TERM = flags.DEFINE_bool("long_term", True, "Use long-term memory for the videos.")
CROP = flags.DEFINE_integer("crop", 96, "Side of the frames in training.", lower_bound=32)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 4, "Clips per training step.", lower_bound=1)


def main() -> None:
    logging.set_verbosity(logging.WARNING)
    size = command.frame_size(str(SIZE.value))
    # The programs never run, and the counts do not depend on how machine code is optimized.
    quick = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"
    os.environ["XLA_FLAGS"] = quick.strip()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES.value)
    print(f"{MODEL.value} on {DEVICES.value} devices")
    print(f"{'program':16s}{'collectives':>12s}{'state, MB':>12s}{'temporaries, MB':>18s}")
    for what, program in _programs(size):
        count = sum(program.collectives.values())
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(program.collectives.items()))
        print(
            f"{what + ' ' + program.name:16s}{count:12d}{program.state / 1e6:12.1f}"
            f"{program.temporaries / 1e6:18.1f}  {kinds}".rstrip(),
            flush=True,
        )


def _programs(size: tuple[int, int]) -> Iterator[tuple[str, "SpreadProgram"]]:
    from s3_jax.analysis import spreading
    from s3_jax.analysis.programs import TrainingTask

    model = MODELS[str(MODEL.value)]
    config = PropagationConfig.suiting(model, long_term=LONG_TERM.value)
    for program in spreading.video_programs(model, config, size, OBJECTS.value):
        yield "video", program
    task = TrainingTask(model, BATCH_SIZE.value, frames=3, crop=CROP.value, dtype="float32")
    for form in spreading.FORMS:
        yield "training", spreading.training_program(task, form)
