r"""Measure the time, arithmetic and memory of a training step, and the data rate it needs.

  s3 bench training --model=s3_resnet18 --batch_size=1 --crop=128 --frames=4
  s3 bench training --model=s3_vitb --dtype=bfloat16 --trace_only

By default both stages of the published recipe are measured; --stage selects one. Use --crop,
--frames, --objects and --batch_size to scale them down to what your machine can do.

Weights are random, because times do not depend on them. The time of a step is the median of
--repeats; the machine should be otherwise idle. GFLOP counts two operations per multiplication in
matrix products and convolutions, including the backward pass and its recomputation. "temporary" is
the memory that a step needs in addition to state and batch.

With --clips_per_core, as measured by `s3 bench data`, the command also prints how many cores can
feed the step measured here, and a step on an accelerator of --peak_tflops at --utilisation.
"""

import dataclasses
import functools
import statistics
import time
from typing import Any

from absl import flags

from s3_jax.config import MODELS, ModelConfig
from s3_jax.errors import InputError

MODEL = flags.DEFINE_enum("model", "s3_resnet18", sorted(MODELS), "Network.")
STAGE = flags.DEFINE_enum("stage", "both", ["pretraining", "main", "both"], "Stage of training.")
CROP = flags.DEFINE_integer(
    "crop", None, "Side of the frames. Default: the stage's.", lower_bound=32
)
FRAMES = flags.DEFINE_integer(
    "frames", None, "Frames per clip. Default: the stage's.", lower_bound=2
)
OBJECTS = flags.DEFINE_integer(
    "objects", None, "Number of objects. Default: 3; always 1 in pre-training.", lower_bound=1
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Clips per step.", lower_bound=1)
DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Number type of the computation."
)
REMAT = flags.DEFINE_enum(
    "remat", "none", ["none", "products", "full"], "What to recompute in the backward pass."
)
REPEATS = flags.DEFINE_integer("repeats", 3, "Timed steps.", lower_bound=1)
TRACE_ONLY = flags.DEFINE_bool("trace_only", False, "Count GFLOP; compile and run nothing.")
PROFILE = flags.DEFINE_integer(
    "profile", 0, "Also print this many of the costliest modules of a step.", lower_bound=0
)
CLIPS_PER_CORE = flags.DEFINE_float(
    "clips_per_core", None, "Clips that one core prepares per second.", lower_bound=0.0
)
CORES = flags.DEFINE_integer("cores", 16, "CPU cores of the accelerator's host.", lower_bound=1)
PEAK_TFLOPS = flags.DEFINE_float(
    "peak_tflops", 197.0, "Peak TFLOP/s of the accelerator.", lower_bound=0.0
)
UTILISATION = flags.DEFINE_float(
    "utilisation", 0.4, "Fraction of the peak that a step reaches.", 0.0, 1.0
)


@dataclasses.dataclass(frozen=True)
class Shape:
    """Size of a stage's step, on clips of `frames` frames of `crop` x `crop` pixels."""

    stage: str
    crop: int
    frames: int
    objects: int
    batch_size: int


@dataclasses.dataclass(frozen=True)
class Row:
    """Measurements of a stage, or None where not measured; `seconds` is the time of a step."""

    shape: Shape
    gflop: float
    compile_seconds: float | None = None
    seconds: float | None = None
    temporary_mb: float | None = None


def main() -> None:
    print(f"{MODEL.value}, {DTYPE.value}, rematerialization {REMAT.value!r}")
    print("stage        crop frames objects batch   GFLOP/step  compile s  s/step  GFLOP/s"
          "  temporary MB")  # fmt: skip
    for shape in shapes():
        row, places = measure(shape)
        print("\n".join([_line(row), *places]), flush=True)
        if CLIPS_PER_CORE.value:
            print("\n".join(f"  {line}" for line in feeding(row, CLIPS_PER_CORE.value)))


def shapes() -> list[Shape]:
    """Return the sizes of the requested stages, changed by the flags.

    Raises:
      InputError: the network cannot take frames of this size.
    """
    multiple = MODELS[MODEL.value].size_multiple
    if CROP.value and CROP.value % multiple:
        raise InputError(f"--crop is {CROP.value}; {MODEL.value} needs a multiple of {multiple}")
    published = {"pretraining": (384, 3, 1), "main": (480, 8, 3)}
    names = list(published) if STAGE.value == "both" else [STAGE.value]
    found = []
    for name in names:
        crop, frames, objects = published[name]
        objects = 1 if name == "pretraining" else OBJECTS.value or objects
        found.append(
            Shape(name, CROP.value or crop, FRAMES.value or frames, objects, BATCH_SIZE.value)
        )
    return found


def measure(shape: Shape) -> tuple[Row, list[str]]:
    """Trace the stage's step; also compile and time it unless --trace_only is given.

    Returns:
      The measurements, and the lines of the profile if requested.
    """
    import jax

    from s3_jax.analysis.jaxpr_arithmetic import traced_flops
    from s3_jax.training.step import train_step

    trainer, state, batch = _prepare(shape)
    step = jax.jit(
        functools.partial(train_step, trainer), donate_argnums=() if PROFILE.value else 0
    )
    traced = step.trace(state, batch)
    row = Row(shape, traced_flops(traced.jaxpr) * 1e-9)
    if TRACE_ONLY.value:
        return row, []
    begin = time.perf_counter()
    compiled = traced.lower().compile()
    compile_seconds = time.perf_counter() - begin
    memory = compiled.memory_analysis()
    places = _profile(compiled, state, batch) if PROFILE.value else []
    row = dataclasses.replace(
        row,
        compile_seconds=compile_seconds,
        seconds=_median_seconds(compiled, state, batch),
        temporary_mb=memory.temp_size_in_bytes / 1e6 if memory else None,
    )
    return row, places


def feeding(row: Row, clips_per_core: float) -> list[str]:
    """Return lines that calculate how many cores must prepare clips."""
    batch, supply = row.shape.batch_size, CORES.value * clips_per_core
    on_paper = 1e-3 * row.gflop / (PEAK_TFLOPS.value * UTILISATION.value)
    steps = [(f"on paper, {row.gflop * 1e-3:.2f} TFLOP / ({PEAK_TFLOPS.value:g} TFLOP/s x "
              f"{UTILISATION.value:g})", on_paper)]  # fmt: skip
    if row.seconds is not None:
        steps.insert(0, ("measured here", row.seconds))
    lines = []
    for what, seconds in steps:
        needed = batch / seconds
        lines.append(
            f"step {what} = {seconds:.3g} s: {batch} clips a step = {needed:.3g} clips/s "
            f"= {needed / clips_per_core:.2g} cores of {clips_per_core:g} clips/s; {CORES.value} "
            f"cores give {supply:.3g} clips/s, {supply / needed:.2g} times as many"
        )
    return lines


def _prepare(shape: Shape) -> tuple[Any, Any, Any]:
    """Return trainer, state and batch; only their shapes if nothing will run."""
    import jax
    import jax.numpy as jnp

    from s3_jax.models.s3 import S3
    from s3_jax.training.clip_loss import make_trainer
    from s3_jax.training.step import init_state

    config = _config(shape)
    trainer = make_trainer(S3(config, dtype=jnp.dtype(DTYPE.value)), _settings(shape))

    def state() -> Any:
        image = jnp.zeros((1, 64, 64, 3))
        masks = jnp.zeros((1, 1, 64, 64))
        variables = S3(config).init(jax.random.key(0), image, masks)
        return init_state(trainer, dict(variables), seed=0)

    if TRACE_ONLY.value:
        return trainer, jax.eval_shape(state), jax.eval_shape(lambda: _batch(shape))
    return trainer, jax.jit(state)(), _batch(shape)


def _config(shape: Shape) -> ModelConfig:
    single = shape.stage == "pretraining"
    return dataclasses.replace(MODELS[MODEL.value], single_object=single)


def _settings(shape: Shape) -> Any:
    from s3_jax.training.step_config import MAIN_TRAINING, PRE_TRAINING

    step = PRE_TRAINING if shape.stage == "pretraining" else MAIN_TRAINING
    changes: dict[str, Any] = {"remat_encoder": REMAT.value, "remat_frames": REMAT.value}
    clip = dataclasses.replace(step.clip, num_objects=shape.objects, **changes)
    return dataclasses.replace(step, clip=clip)


def _batch(shape: Shape) -> Any:
    """Return grey frames in which every object is a column."""
    import jax.numpy as jnp

    from s3_jax.training.clip import ClipBatch

    size = (shape.batch_size, shape.frames, shape.crop, shape.crop)
    column = jnp.arange(shape.crop, dtype=jnp.int32) * (shape.objects + 1) // shape.crop
    return ClipBatch(
        frames=jnp.full((*size, 3), 128, jnp.uint8),
        masks=jnp.broadcast_to(column.reshape(1, 1, 1, -1), size),
        num_objects=jnp.full((shape.batch_size,), shape.objects, jnp.int32),
    )


def _median_seconds(compiled: Any, state: Any, batch: Any) -> float:
    """Return the median time of a step, without the first one."""
    import jax

    times = []
    for _ in range(REPEATS.value + 1):
        begin = time.perf_counter()
        state, metrics = compiled(state, batch)
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def _profile(compiled: Any, state: Any, batch: Any) -> list[str]:
    from s3_jax.analysis.profile import profile, table

    return table(profile(compiled, (state, batch))[: PROFILE.value])


def _line(row: Row) -> str:
    shape = row.shape
    start = (f"{shape.stage:12s}{shape.crop:5d}{shape.frames:7d}{shape.objects:8d}"
             f"{shape.batch_size:6d}{row.gflop:13.1f}")  # fmt: skip
    if row.seconds is None or row.compile_seconds is None:
        return start
    memory = "unknown" if row.temporary_mb is None else f"{row.temporary_mb:.0f}"
    rate = row.gflop / row.seconds
    return f"{start}{row.compile_seconds:11.1f}{row.seconds:8.2f}{rate:9.1f}{memory:>14s}"
