r"""Estimate memory and time on TPUs that you do not have, by compiling the program for them.

  s3 plan --config=train_s3_vitb --topology=v5e:4x4
  s3 plan --model=s3_vitl --topology=v5p:2x2x2 --search       without a configuration
  s3 plan --model=s3_vitb --topology=v5e:2x2 --program=propagation --objects=3
  s3 plan --program=forms --topology=v4-8          compare gathers and matrix products, quickly

The training step is `training.parallel.parallel_step` on all chips of the topology. It is taken
from --stage or the last stage of a configuration, or with --model from the published main stage.
Propagation is `propagation.scan` on one chip. Both need the TPU compiler, the package libtpu:

  pip install 's3_jax[tpu]'

Memory is what the compiler allocates. Times are not measured:
  roofline              the bound from peak arithmetic and bandwidth
  compiler's estimate   the sum of the cycles that the compiler expects for each instruction,
                        without waits for memory and other chips

--search compiles the training step with different rematerialization, then with micro-batches, until
it finds the fastest one that fits. Each compilation of a large network takes ten minutes or more.
"""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from absl import flags, logging

from s3_jax.cli import command, config_flag
from s3_jax.config import MODELS, PropagationConfig
from s3_jax.errors import InputError
from s3_jax.files import replacing

if TYPE_CHECKING:
    from s3_jax.analysis.estimate import Estimate, OutOfMemory
    from s3_jax.analysis.programs import PropagationTask, TrainingTask
    from s3_jax.analysis.topology import Topology
    from s3_jax.training.run_config import RunConfig
    from s3_jax.training.step_config import StepConfig

CONFIG = config_flag.define_config_flag()
flags.adopt_module_key_flags(config_flag)
STAGE = flags.DEFINE_string("stage", None, "Stage of the configuration. Default: the last one.")
MODEL = flags.DEFINE_enum("model", None, sorted(MODELS), "Network, if there is no --config.")
TOPOLOGY = flags.DEFINE_string(
    "topology", "v5e:4x4", "Chips: v4:2x2x1, v5e:4x4, v5p:2x2x2, v6e:2x2, or a slice: v4-8, v5e-16."
)
PROGRAM = flags.DEFINE_enum(
    "program", "training", ["training", "propagation", "forms"],
    "A training step, frames of a video, or small computations in both of their forms.",
)  # fmt: skip
DTYPE = flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float32"], "Number type of the "
                          "computation, if there is no --config.")  # fmt: skip
BATCH = flags.DEFINE_integer(
    "batch_size", None, "Training: clips per step, over all chips.", lower_bound=1
)
ENCODER = flags.DEFINE_enum(
    "remat_encoder", None, ["none", "products", "full"],
    "Training: what to recompute instead of keeping in the image encoder.",
)  # fmt: skip
FRAMES = flags.DEFINE_enum(
    "remat_frames", None, ["none", "products", "full"],
    "Training: what to recompute instead of keeping in the frame-by-frame part.",
)  # fmt: skip
ACCUMULATE = flags.DEFINE_integer(
    "accumulate", None, "Training: number of micro-batches.", lower_bound=1
)
SEARCH = flags.DEFINE_bool("search", False, "Training: search for settings that fit.")
HEADROOM = flags.DEFINE_float(
    "headroom", 0.1, "Fraction of the memory that should stay free.", lower_bound=0, upper_bound=0.9
)
SIZE = flags.DEFINE_string("size", "480x864", "Propagation: height x width of the frames.")
OBJECTS = flags.DEFINE_integer("objects", 3, "Propagation: number of objects.", lower_bound=1)
VIDEO = flags.DEFINE_integer("video_frames", 10, "Propagation: frames per scan.", lower_bound=1)
LONG_TERM = flags.DEFINE_bool("long_term", True, "Propagation: use long-term memory.")
CHUNK = flags.DEFINE_integer("chunk_size", -1, "Propagation: objects at a time; -1 for all.")
AT_ONCE = flags.DEFINE_integer("encode_at_once", 1, "Propagation: frames that the image encoder "
                               "takes at once.", lower_bound=1)  # fmt: skip
OUTPUT = flags.DEFINE_string(
    "output", None, "Directory for report.txt, report.json and the program's text, program.hlo."
)


def main() -> None:
    logging.set_verbosity(logging.WARNING)
    jax.config.update("jax_platforms", "cpu")
    from s3_jax.analysis.topology import open_topology

    topology = open_topology(TOPOLOGY.value)
    if PROGRAM.value == "forms":
        _compare_forms(topology)
        return
    if PROGRAM.value == "propagation":
        text, plan = _plan_propagation(topology)
    elif SEARCH.value:
        text, plan = _search(topology)
    else:
        text, plan = _plan_training(topology)
    if OUTPUT.value:
        _write(Path(OUTPUT.value), text, plan)
    if plan is None:
        raise InputError("the program does not fit; --search looks for settings that fit")


def _plan_training(topology: "Topology") -> tuple[str, "Estimate | None"]:
    task = _training_task()
    print(_training_title(task, topology), flush=True)
    return _shown(_compile_training(task, task.step, topology))


def _search(topology: "Topology") -> tuple[str, "Estimate | None"]:
    from s3_jax.analysis.estimate_report import attempt_line
    from s3_jax.analysis.search import best, search

    task = _training_task()
    print(_training_title(task, topology), flush=True)
    rows = task.batch_size // len(topology.devices)
    compile_one = lambda step: _compile_training(task, step, topology)  # noqa: E731
    attempts = []
    for attempt in search(task.step, rows, HEADROOM.value, compile_one):
        print(attempt_line(attempt, HEADROOM.value), flush=True)
        attempts.append(attempt)
    chosen = best(attempts, HEADROOM.value)
    print(f"\nthe fastest that fits: {attempt_line(chosen, HEADROOM.value)}"
          if chosen.fits(HEADROOM.value) else "\nnone fits; the last one:")  # fmt: skip
    return _shown(chosen.outcome)


def _compare_forms(topology: "Topology") -> None:
    from s3_jax.analysis.forms import compare_forms, comparison_line

    print(f"on one {topology.chip.name}: {'':27s}form    estimate     roofline    memory  contains")
    for comparison in compare_forms(topology.chip, topology.devices[0]):
        print(comparison_line(comparison), flush=True)


def _plan_propagation(topology: "Topology") -> tuple[str, "Estimate | None"]:
    from s3_jax.analysis.estimate import compile_estimate
    from s3_jax.analysis.programs import trace_propagation

    task = _propagation_task()
    height, width = task.size
    print(f"{_name()}, {task.dtype}, {task.frames} frames of {height}x{width}, {task.objects} "
          f"objects, {'with' if LONG_TERM.value else 'without'} long-term memory, "
          f"on one {topology.chip.name}", flush=True)  # fmt: skip
    traced = trace_propagation(task, topology.devices[0])
    return _shown(compile_estimate(traced, topology.chip, 1))


def _shown(outcome: "Estimate | OutOfMemory") -> tuple[str, "Estimate | None"]:
    from s3_jax.analysis.estimate import Estimate
    from s3_jax.analysis.estimate_report import refusal, report

    if isinstance(outcome, Estimate):
        text = report(outcome)
        print(f"compiled in {outcome.compile_seconds:.0f} s\n\n{text}")
        return text, outcome
    text = refusal(outcome)
    print(text)
    return text, None


def _compile_training(
    task: "TrainingTask", step: "StepConfig", topology: "Topology"
) -> "Estimate | OutOfMemory":
    from s3_jax.analysis.estimate import compile_estimate
    from s3_jax.analysis.programs import trace_training

    task = dataclasses.replace(task, step=step)
    traced = trace_training(task, topology.devices)
    return compile_estimate(traced, topology.chip, len(topology.devices))


def _training_task() -> "TrainingTask":
    """Return the task of the configuration or of the published main stage, changed by the flags."""
    from s3_jax.analysis.programs import TrainingTask, task_of_stage

    run = _run_config()
    if run is None:
        task = TrainingTask(MODELS[str(MODEL.value)], dtype=DTYPE.value)
    else:
        task = task_of_stage(run, STAGE.value)
    of_clip = _given(remat_encoder=ENCODER.value, remat_frames=FRAMES.value)
    clip = dataclasses.replace(task.step.clip, **of_clip)
    of_step = _given(accumulate=ACCUMULATE.value) | {"clip": clip}
    step = dataclasses.replace(task.step, **of_step)
    return dataclasses.replace(task, step=step, **_given(batch_size=BATCH.value))


def _given(**values: Any) -> dict[str, Any]:
    """Return the values of those flags that were given."""
    return {name: value for name, value in values.items() if value is not None}


def _run_config() -> "RunConfig | None":
    from s3_jax.training import run_config

    if (CONFIG.value is None) == (MODEL.value is None):
        raise InputError("give either --config or --model")
    return None if CONFIG.value is None else run_config.from_dict(CONFIG.value.to_dict())


def _propagation_task() -> "PropagationTask":
    from s3_jax.analysis.programs import PropagationTask

    run = _run_config()
    model = run.model if run else MODELS[str(MODEL.value)]
    config = PropagationConfig.suiting(model, long_term=LONG_TERM.value, chunk_size=CHUNK.value)
    size = command.frame_size(SIZE.value)
    return PropagationTask(
        model, size, OBJECTS.value, VIDEO.value, DTYPE.value, config, AT_ONCE.value
    )


def _training_title(task: "TrainingTask", topology: "Topology") -> str:
    clip = task.step.clip
    return (f"{_name()}, {task.dtype}, batch of {task.batch_size} clips of {task.frames} "
            f"frames of {task.crop}x{task.crop}, {clip.num_objects} objects, on "
            f"{len(topology.devices)} {topology.chip.name} ({topology.name}); remat encoder "
            f"{clip.remat_encoder}, frames {clip.remat_frames}; micro-batches "
            f"{task.step.accumulate}")  # fmt: skip


def _name() -> str:
    return MODEL.value or "the network of --config"


def _write(directory: Path, text: str, plan: "Estimate | None") -> None:
    from s3_jax.analysis.estimate_report import numbers

    directory.mkdir(parents=True, exist_ok=True)
    files = {"report.txt": text + "\n"}
    if plan is not None:
        files["program.hlo"] = plan.text
        files["report.json"] = json.dumps(numbers(plan), indent=1) + "\n"
    for name, content in files.items():
        with replacing(directory / name) as temporary:
            temporary.write_text(content)
