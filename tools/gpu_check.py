r"""Check the network on a GPU in one command: first its outputs, then speed, memory and forms.

  python -m tools.gpu_check --output=gpu_check.md

The command needs a checkout (recordings of the published networks are in tests/goldens) and JAX for
the GPU, but neither a network connection nor data. Speed is measured with random weights and
frames, because it does not depend on them. Programs are compiled in parallel and measured one at a
time. Programs that do not start within --minutes are listed as "not run".

"of peak" compares the rate of a program's matrix products and convolutions with that of a large
matrix product of the same dtype, measured in the same run. "memory" is the memory that the compiler
reserves for arguments, results and temporaries.
"""

import concurrent.futures
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from s3_jax.analysis.jaxpr_arithmetic import traced_flops
from s3_jax.analysis.programs import TrainingTask
from s3_jax.analysis.workloads import full_state, random_batch, random_frames, random_variables
from s3_jax.cli import command
from s3_jax.config import MODELS, PropagationConfig
from s3_jax.conversion.weights import from_torch
from s3_jax.models.s3 import S3
from s3_jax.ops.backend import compiling_for
from s3_jax.propagation.frame import Network
from s3_jax.propagation.geometry import frame_geometry
from s3_jax.propagation.scan import scan
from s3_jax.training.clip_loss import make_trainer
from s3_jax.training.step import init_state, train_step
from tests.support import stages, weights
from tests.support.goldens import load_keys, load_recording
from tests.support.stage_names import by_recorded_name

OUTPUT = flags.DEFINE_string("output", None, "Also write the tables to this Markdown file.")
MINUTES = flags.DEFINE_float(
    "minutes", 5.5, "Minutes after which nothing new starts.", lower_bound=0.1
)
ONLY = flags.DEFINE_list("only", None, "Sections to run: recordings, video, training, forms.")
NETWORKS = flags.DEFINE_list("networks", None, "Measure only these networks.")
SIZE = flags.DEFINE_string("size", "480x864", "Height x width of the video's frames.")
CROP = flags.DEFINE_integer("crop", 480, "Side of the training clips' frames.", lower_bound=64)

GOLDENS = Path(__file__).parent.parent / "tests" / "goldens"
RECORDED = ("cutie_small", "s3_resnet18", "s3_vitb_depthanything", "s3_fpn_vitb")
SECTIONS = ("recordings", "video", "training", "forms")
FRAMES = 10  # per scan: two memory intervals
# Network, objects, dtype; the most informative come first, since time may run out.
VIDEOS = (
    ("s3_lite", 1, "bfloat16"),
    ("s3_vitb_depthanything", 1, "bfloat16"),
    ("s3_lite", 1, "float32"),
    ("cutie_base", 1, "bfloat16"),
    ("s3_resnet50", 1, "bfloat16"),
    ("s3_vitb_depthanything", 1, "float32"),
    ("s3_vitb_depthanything", 8, "bfloat16"),
    ("cutie_small", 8, "bfloat16"),
    ("s3_vitl", 1, "bfloat16"),
)
# Network, clips per step, dtype.
TRAININGS = (("s3_vitb", 2, "bfloat16"), ("s3_resnet18", 4, "bfloat16"))


@dataclasses.dataclass(frozen=True)
class Program:
    """A program to time; a run takes `flops` operations and produces `units` of `unit`."""

    section: str
    name: str
    dtype: str
    unit: str
    units: int
    flops: float
    compiled: Any
    arguments: tuple[Any, ...]
    advance: Callable[[Any, tuple[Any, ...]], tuple[Any, ...]] = lambda _, arguments: arguments


def main() -> int:
    begin = time.monotonic()
    device = jax.devices()[0]
    lines = [f"{device.device_kind}, JAX {jax.__version__}", ""]
    _say(lines, lines[0])
    peaks = {dtype: matmul_rate(dtype) for dtype in ("bfloat16", "float32")}
    _say(lines, "matrix products: " + ", ".join(
        f"{dtype} {rate / 1e12:.0f} TFLOP/s" for dtype, rate in peaks.items()))  # fmt: skip
    sections = ONLY.value or SECTIONS
    wrong = False
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(build) for build in _builders(sections)]
        if "recordings" in sections:
            wrong = _compare_recordings(lines)
        section = ""
        for task in waiting:
            if time.monotonic() - begin > 60 * MINUTES.value:
                task.cancel()
                _say(lines, "| not run: no time left |")
                continue
            program = task.result()
            if program.section != section:
                section = program.section
                _say(lines, f"\n| {section} | type | a second | ms | TFLOP/s | of peak | memory |"
                            "\n|---|---|---|---|---|---|---|")  # fmt: skip
            _say(lines, _row(program, peaks[program.dtype]))
    _say(lines, f"\n{time.monotonic() - begin:.0f} s in total")
    return int(wrong)


def _say(lines: list[str], line: str) -> None:
    """Print a line and write all lines so far, so that an interrupted run keeps its results."""
    lines.append(line)
    print(line, flush=True)
    if OUTPUT.value:
        Path(OUTPUT.value).write_text("\n".join(lines) + "\n")


def matmul_rate(dtype: str) -> float:
    """Return the FLOP/s of a large matrix product; float32 is at JAX's default precision."""
    n = 8192 if jax.default_backend() == "gpu" else 1024
    x = jax.random.normal(jax.random.key(0), (n, n), jnp.dtype(dtype))
    product = jax.jit(lambda a, b: a @ b)
    return 2 * n**3 / statistics.median(_seconds(product, (x, x), 10))


def _compare_recordings(lines: list[str]) -> bool:
    """Compare every stage with recordings of the published networks; return True if any differs."""
    _say(
        lines, "\n| recording | arrays | wrong | largest share of a tolerance |\n|---|---|---|---|"
    )
    shapes, wrong = load_keys(GOLDENS), False
    for name in RECORDED:
        recording = load_recording(GOLDENS, f"network_{name}")
        config = MODELS[name]
        variables = from_torch(weights.state_dict(shapes[name]), config)
        with jax.default_matmul_precision("highest"):
            found = stages.run(config, variables, recording.below("in."))
        ours = by_recorded_name(config, variables["params"], found)
        names = [array for array in recording.names if not array.startswith("in.")]
        shares = {array: _share(recording, array, ours) for array in names}
        worst = max(shares, key=lambda array: shares[array])
        failed = sum(share > 1 for share in shares.values())
        wrong |= failed > 0
        _say(lines, f"| {name} | {len(names)} | {failed} | {shares[worst]:.2f} (`{worst}`) |")
    return wrong


def _share(recording: Any, name: str, ours: dict[str, np.ndarray]) -> float:
    """Return the difference from a recorded array as a share of its tolerance."""
    value = ours.get(name, ours.get(name.removesuffix("_sub")))
    if value is None:
        return float("inf")
    return recording.largest_difference(name, value) / recording.tolerance(name)


def _builders(sections: list[str] | tuple[str, ...]) -> Iterator[Callable[[], Program]]:
    """Yield functions that compile one program each."""
    if "video" in sections:
        for video in _chosen(VIDEOS):
            yield functools.partial(_video, *video)
    if "training" in sections:
        for training in _chosen(TRAININGS):
            yield functools.partial(_training, *training)
    if "forms" in sections:
        yield from _forms()


def _chosen(programs: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [one for one in programs if not NETWORKS.value or one[0] in NETWORKS.value]


def _video(name: str, objects: int, dtype: str) -> Program:
    """Compile the scan over frames of a video whose memory is full."""
    config, settings = MODELS[name], PropagationConfig.suiting(MODELS[name])
    size = command.frame_size(SIZE.value)
    model = S3(config, dtype=jnp.dtype(dtype))
    geometry = frame_geometry(size, config.size_multiple)

    def run(variables: Any, state: Any, frames: Any) -> Any:
        state, prob = scan(Network(model, variables), settings, geometry, state, frames)
        return state, jnp.argmax(prob, axis=1).astype(jnp.uint8)

    arguments = (
        random_variables(config),
        full_state(config, settings, size, objects, dtype),
        jnp.asarray(random_frames(FRAMES, size)),
    )
    traced = jax.jit(run, donate_argnums=1).trace(*arguments)
    title = f"{name}, {objects} object{'s' * (objects > 1)}"
    return Program("video", title, dtype, "frames", FRAMES, traced_flops(traced.jaxpr),
                   traced.lower().compile(), arguments, _next_video)  # fmt: skip


def _next_video(result: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return arguments[0], result[0], arguments[2]


def _training(name: str, batch_size: int, dtype: str) -> Program:
    """Compile a step of the main training stage."""
    task = TrainingTask(MODELS[name], batch_size=batch_size, crop=CROP.value, dtype=dtype)
    trainer = make_trainer(S3(task.model, dtype=jnp.dtype(dtype)), task.step)
    state = init_state(trainer, random_variables(task.model), 0)
    batch = jax.tree.map(lambda x: x[0], random_batch(task, 1))
    step = jax.jit(functools.partial(train_step, trainer), donate_argnums=0)
    traced = step.trace(state, batch)
    title = f"{name}, {batch_size} clips of {task.frames} frames of {task.crop}"
    return Program("training", title, dtype, "steps", 1, traced_flops(traced.jaxpr),
                   traced.lower().compile(), (state, batch), _next_step)  # fmt: skip


def _next_step(result: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return result[0], arguments[1]


def _forms() -> Iterator[Callable[[], Program]]:
    """Yield functions that compile the GPU form and the TPU form of each computation."""
    from s3_jax.analysis.forms import FORMS, computations

    for name, (function, shapes) in computations().items():
        for form, platform in FORMS.items():
            yield functools.partial(_form, f"{name}: {form}", function, shapes, platform)


def _form(name: str, function: Callable[..., Any], shapes: Any, platform: str) -> Program:
    arguments = jax.tree.map(_random, shapes)
    with compiling_for(platform):
        traced = jax.jit(lambda *args: function(*args)).trace(*arguments)
        compiled = traced.lower().compile()
    return Program("forms", name, "bfloat16", "runs", 1, traced_flops(traced.jaxpr), compiled,
                   arguments)  # fmt: skip


def _random(leaf: Any) -> Any:
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return jnp.zeros(leaf.shape, leaf.dtype)
    return jax.random.normal(jax.random.key(1), leaf.shape, leaf.dtype)


def _row(program: Program, peak: float) -> str:
    times, arguments = [], program.arguments
    for _ in range(12):
        begin = time.perf_counter()
        result = jax.block_until_ready(program.compiled(*arguments))
        times.append(time.perf_counter() - begin)
        arguments = program.advance(result, arguments)
    seconds = statistics.median(times[2:])
    rate = program.flops / seconds
    memory = program.compiled.memory_analysis()
    size = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    size += memory.output_size_in_bytes - memory.alias_size_in_bytes
    return (f"| {program.name} | {program.dtype} | {program.units / seconds:.1f} {program.unit} | "
            f"{1e3 * seconds / program.units:.2f} | {rate / 1e12:.2f} | {rate / peak:.1%} | "
            f"{size / 2**30:.2f} GiB |")  # fmt: skip


def _seconds(function: Callable[..., Any], arguments: tuple[Any, ...], runs: int) -> list[float]:
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - begin)
    return times


if __name__ == "__main__":
    command.run(main)
