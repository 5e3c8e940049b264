r"""Measure how speed scales on this machine, as CSV tables and PNG charts.

  s3 bench curves --output=curves                              all curves
  s3 bench curves --output=curves --curves=objects,resolution --model=s3_resnet18

Curves:
  objects      frames/s of 480p video against the number of objects
  resolution   frames/s against the height of the frames
  together     frames/s against the number of frames encoded at once
  length       frames/s at frame 100, 300, ... 10,000 of one video with long-term memory
  training     clips/s of a training step against the batch size, and against the number of replicas
               on one machine

Weights are random, because times do not depend on them. Each point is the minimum of --repeats
runs. The machine should be otherwise idle; if it is not, look at the column of CPU time. Memory is
what the compiled program requests. A new measurement of a curve replaces the old one; other curves
are kept.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jax
from absl import flags, logging

from s3_jax.cli import command
from s3_jax.config import MODELS
from s3_jax.errors import InputError
from s3_jax.media.writers import write_csv, write_picture

if TYPE_CHECKING:
    from s3_jax.analysis.scaling import Point

CURVES = ("objects", "resolution", "together", "length", "training")
OUTPUT = flags.DEFINE_string("output", None, "Directory for the CSV and PNG files. Required.")
CHOSEN = flags.DEFINE_list("curves", list(CURVES), f"Curves to measure: any of {','.join(CURVES)}.")
MODEL = flags.DEFINE_enum("model", "s3_resnet18", sorted(MODELS), "Network.")
REPEATS = flags.DEFINE_integer("repeats", 3, "Runs per point.", lower_bound=1)
OBJECTS = flags.DEFINE_list("objects", ["1", "2", "4", "8", "16", "32"], "Numbers of objects.")
CHUNK = flags.DEFINE_integer("chunk_size", 4, "Objects at a time in the objects curve; -1: all.")
HEIGHTS = flags.DEFINE_list("heights", ["240", "360", "480", "720", "1080"], "Frame heights.")
TOGETHER = flags.DEFINE_list("together", ["1", "5"], "Numbers of frames encoded at once.")
LENGTHS = flags.DEFINE_list("lengths", ["100", "300", "1000", "3000", "10000"],
                            "Video lengths, multiples of 100.")  # fmt: skip
LENGTH_SIZE = flags.DEFINE_string("length_size", "64x96", "Height x width in the length curve.")
BATCHES = flags.DEFINE_list("batches", ["1", "2", "4"], "Batch sizes.")
REPLICAS = flags.DEFINE_list("replicas", ["1", "2", "4"], "Numbers of replicas.")
CROP = flags.DEFINE_integer("crop", 96, "Side of the frames in training.", lower_bound=32)

SIZE = 480, 864
PART = 100
TITLES = {
    "objects": ("frames per second against objects, 480 x 864", "objects", "frames/s"),
    "resolution": ("frames per second against frame height, 16:9", "pixels", "frames/s"),
    "together": ("frames per second against frames encoded at once", "frames", "frames/s"),
    "length": ("frames per second late in long videos", "frame", "frames/s"),
    "batch": ("training: clips per second against batch", "clips", "clips/s"),
    "replicas": ("training: clips per second against replicas", "replicas", "clips/s"),
}


def main() -> None:
    logging.set_verbosity(logging.WARNING)
    if not OUTPUT.value:
        raise InputError("give --output, a directory for the CSV and PNG files")
    if unknown := sorted(set(CHOSEN.value) - set(CURVES)):
        raise InputError(f"--curves={','.join(unknown)}: choose from {', '.join(CURVES)}")
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    replicas = _integers("replicas", REPLICAS.value)
    if "training" in CHOSEN.value and jax.config.jax_platforms in (None, "", "cpu"):  # type: ignore[attr-defined]
        jax.config.update("jax_num_cpu_devices", max(replicas))
    from s3_jax.cli.compilation import prepare_compilation

    prepare_compilation()
    for name in CHOSEN.value:
        points: dict[str, list[Point]] = {}
        for point in _measurements()[name]():
            print(f"{point.curve:11s}{point.x:7d}  {point.per_second:9.3f} /s "
                  f"{point.cpu_milliseconds:10.1f} CPU ms {point.memory_gb:7.2f} GB  "
                  f"{point.setting}", flush=True)  # fmt: skip
            points.setdefault(point.curve, []).append(point)
        for curve, measured in points.items():
            _write(output / curve, measured)


def _measurements() -> "dict[str, Callable[[], Iterator[Point]]]":
    from s3_jax.analysis import scaling
    from s3_jax.analysis.programs import TrainingTask
    from s3_jax.training.step_config import MAIN_TRAINING

    model, repeats = MODELS[MODEL.value], REPEATS.value
    loss = dataclasses.replace(MAIN_TRAINING.loss, num_points=1024)
    task = TrainingTask(model, 1, 3, CROP.value, "float32",
                        step=dataclasses.replace(MAIN_TRAINING, loss=loss))  # fmt: skip
    lengths = _integers("lengths", LENGTHS.value)
    if wrong := [n for n in lengths if n % PART]:
        raise InputError(f"--lengths={wrong[0]} is not a multiple of {PART}")
    return {
        "objects": lambda: scaling.objects_curve(
            model, SIZE, _integers("objects", OBJECTS.value), CHUNK.value, repeats
        ),
        "resolution": lambda: scaling.resolution_curve(
            model, _integers("heights", HEIGHTS.value), repeats
        ),
        "together": lambda: scaling.together_curve(
            model, SIZE, _integers("together", TOGETHER.value), repeats
        ),
        "length": lambda: scaling.length_curve(
            model, command.frame_size(LENGTH_SIZE.value, "length_size"), lengths, PART
        ),
        "training": lambda: scaling.training_curves(
            task, _integers("batches", BATCHES.value), _integers("replicas", REPLICAS.value),
            repeats,
        ),
    }  # fmt: skip


def _integers(flag: str, texts: list[str]) -> list[int]:
    """Parse the numbers of a flag, and return them in ascending order."""
    if not texts or not all(text.strip().isdigit() and int(text) for text in texts):
        raise InputError(f"--{flag}={','.join(texts)}; write whole numbers above 0, like 1,2,4")
    return sorted(int(text) for text in texts)


def _write(path: Path, points: "list[Point]") -> None:
    """Write path.csv and path.png."""
    from s3_jax.analysis.chart import Series, line_chart

    header = [*(f.name for f in dataclasses.fields(points[0])), "model"]
    rows = [[*dataclasses.astuple(point), MODEL.value] for point in points]
    by_cpu = [(float(p.x), 1e3 / p.cpu_milliseconds) for p in points if p.cpu_seconds > 0]
    series = [Series("by the clock", [(float(p.x), p.per_second) for p in points]),
              Series("per second of CPU time", by_cpu)]  # fmt: skip
    title, x_name, y_name = TITLES[points[0].curve]
    image = line_chart(f"{MODEL.value}: {title}", x_name, y_name, series)
    write_csv(path.with_suffix(".csv"), [header, *rows])
    write_picture(path.with_suffix(".png"), image)
