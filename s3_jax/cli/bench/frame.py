r"""Time every stage of a frame, and compare it with the peak rate of this machine.

  s3 bench frame                                  s3_resnet18, 480 x 864, one object
  s3 bench frame --model=s3_vitb_depthanything --objects=3
  s3 bench frame --model=s3_resnet50 --dtype=bfloat16 --csv=speed.csv

Weights are random, because times do not depend on them. Times are medians over --repeats; the
machine should be otherwise idle.

The stage "video" is a frame of a running video, on average over memory intervals: steps of a
session, on CPUs with the next frame encoded at the same time, and masks brought to the host.

Columns:
  GFLOP        XLA's count for the compiled program
  of peak      relative to a large float32 matrix product, measured in the same run
  temporary    memory that the program needs in addition to its inputs and outputs
"""

import dataclasses
import functools
import itertools
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import flags, logging

from s3_jax.cli import command
from s3_jax.config import MODELS, PropagationConfig
from s3_jax.errors import InputError
from s3_jax.media.writers import write_csv

MODEL = flags.DEFINE_enum("model", "s3_resnet18", sorted(MODELS), "Network.")
SIZE = flags.DEFINE_string("size", "480x864", "Height x width of the frames.")
OBJECTS = flags.DEFINE_integer("objects", 1, "Number of objects.", lower_bound=1)
DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "Number type of the computation."
)
REPEATS = flags.DEFINE_integer("repeats", 5, "Runs per stage.", lower_bound=1)
LONG_TERM = flags.DEFINE_bool("long_term", False, "Also read a full long-term memory.")
STAGES = flags.DEFINE_list("stages", None, "Measure only these stages.")
PROFILE = flags.DEFINE_integer(
    "profile", 0, "Also print this many of the costliest modules of every stage.", lower_bound=0
)
CSV = flags.DEFINE_string("csv", None, "Also write the table to this file.")

STAGE_NAMES = (
    "encode", "read", "fuse", "transformer", "decode", "write", "frame", "memory frame", "video",
)  # fmt: skip
# The published PyTorch release: seconds per frame on 2 CPU cores of 160 to 180 GFLOP/s, float32,
# one object, 480 x 864, ordinary frames.
PYTORCH_SECONDS = {"s3_vitb_depthanything": 7.5, "s3_resnet50": 1.01, "s3_resnet18": 0.60}
PYTORCH_SETTING = ("480x864", 1, "float32")


@dataclasses.dataclass(frozen=True)
class Row:
    """Measurements of one compiled program, or only the time of a frame in a video."""

    stage: str
    milliseconds: float
    gflop: float | None = None
    share_of_peak: float | None = None
    temporary_mb: float | None = None
    compile_seconds: float | None = None


def main() -> None:
    logging.set_verbosity(logging.WARNING)
    size = command.frame_size(SIZE.value)
    chosen = _chosen_stages()
    height, width = size
    peak = matmul_rate(REPEATS.value)
    print(f"{MODEL.value}, {height}x{width}, {OBJECTS.value} object(s), {DTYPE.value}")
    print(f"baseline: float32 matrix product of 2048 x 2048 at {peak:.0f} GFLOP/s\n")
    print("stage            ms    GFLOP  of peak  temporary MB  compile s")
    rows = []
    for stage, make in stages(size):
        if stage not in chosen:
            continue
        function, args = make()
        compiled, compile_seconds = _compile(function, args)
        rows.append(row := measure(stage, compiled, args, peak, compile_seconds))
        print(f"{row.stage:12s}{row.milliseconds:9.1f}{row.gflop:8.1f}{row.share_of_peak:8.0%}"
              f"{row.temporary_mb:13.0f}{row.compile_seconds:11.1f}", flush=True)  # fmt: skip
        if PROFILE.value:
            _print_profile(compiled, args)
    if "video" in chosen:
        rows.append(row := Row("video", 1e3 * video_seconds(size)))
        print(f"{row.stage:12s}{row.milliseconds:9.1f}")
        _summarize(row.milliseconds / 1e3)
    if CSV.value:
        _write_csv(Path(CSV.value), rows)


def _chosen_stages() -> list[str]:
    chosen = STAGES.value or list(STAGE_NAMES)
    for name in chosen:
        if name not in STAGE_NAMES:
            raise InputError(f"--stages holds {name!r}; stages are {', '.join(STAGE_NAMES)}")
    return chosen


def matmul_rate(repeats: int) -> float:
    """Return the GFLOP/s of a float32 matrix product: the best of several runs."""
    import jax
    import jax.numpy as jnp

    n = 2048
    x = jnp.ones((n, n), jnp.float32)
    product = jax.jit(lambda a, b: a @ b)
    return 2e-9 * n**3 / min(_seconds(product, (x, x), max(repeats, 5)))


def _compile(function: Callable[..., Any], args: tuple) -> tuple[Any, float]:
    """Return the compiled program, and the seconds that compilation took."""
    import jax

    begin = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    return compiled, time.perf_counter() - begin


def measure(stage: str, compiled: Any, args: tuple, peak: float, compile_seconds: float) -> Row:
    """Time one stage."""
    seconds = statistics.median(_seconds(compiled, args, REPEATS.value))
    gflop = float((compiled.cost_analysis() or {}).get("flops", 0)) * 1e-9
    memory = compiled.memory_analysis()
    temporary = memory.temp_size_in_bytes / 1e6 if memory else float("nan")
    return Row(stage, 1e3 * seconds, gflop, gflop / seconds / peak, temporary, compile_seconds)


def _print_profile(compiled: Any, args: tuple) -> None:
    from s3_jax.analysis.profile import profile, table

    print("\n".join(table(profile(compiled, args)[: PROFILE.value])))


def _seconds(function: Callable[..., Any], args: tuple, repeats: int) -> list[float]:
    import jax

    jax.block_until_ready(function(*args))
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - begin)
    return times


def stages(size: tuple[int, int]) -> Iterator[tuple[str, Callable[[], tuple]]]:
    """Yield the name of each stage with a function that makes its program and arguments."""
    import jax
    import jax.numpy as jnp

    from s3_jax.analysis.workloads import full_state, random_variables
    from s3_jax.memory.object_memory import object_values
    from s3_jax.models.s3 import S3
    from s3_jax.ops.products import computing_types
    from s3_jax.propagation.frame import Network
    from s3_jax.propagation.step import Encoded, read_memory, remember_last, step

    config = _propagation()
    dtype, products = computing_types(DTYPE.value)
    model = S3(MODELS[MODEL.value], dtype=dtype, products=products)
    variables = random_variables(model.config)
    state = full_state(model.config, config, size, OBJECTS.value, dtype.name)
    image = jax.random.uniform(jax.random.key(0), (1, *state.last_mask.shape[2:], 3))
    features = jax.jit(_call, static_argnums=(0, 1))(model, "encode_image", variables, image)
    call = functools.partial(functools.partial, _call, model)
    network = functools.partial(Network, model)
    value = jnp.zeros(state.sensory.shape, model.dtype)
    query = object_values(state.object_memory)
    yield "encode", lambda: (_encode(model), (variables, image))
    yield (
        "read",
        lambda: (
            lambda state, features: read_memory(config, state, features.key),
            (state, features),
        ),
    )
    yield (
        "fuse",
        lambda: (
            call("fuse_pixels"),
            (variables, features.pix_feat, value, state.sensory, state.last_mask),
        ),
    )
    yield "transformer", lambda: (call("transform_objects"), (variables, value, query))
    yield "decode", lambda: (_decode(model), (variables, features, value, state.sensory))
    yield (
        "write",
        lambda: (
            lambda variables, state, features: remember_last(
                network(variables), config, state, Encoded(image, features), False
            ),
            (variables, state, features),
        ),
    )

    def frame(since: int) -> tuple:
        def propagate(variables: Any, state: Any, image: Any) -> Any:
            return step(network(variables), config, state, image)

        return propagate, (variables, state.replace(since_memory=jnp.int32(since)), image)

    yield "frame", lambda: frame(0)
    yield "memory frame", lambda: frame(config.mem_every - 1)


def _propagation() -> PropagationConfig:
    return PropagationConfig.suiting(MODELS[MODEL.value], long_term=LONG_TERM.value)


def _call(model: Any, method: str, variables: Any, *args: Any) -> Any:
    from s3_jax.propagation.frame import Network

    return Network(model, variables)(method, *args)


def _encode(model: Any) -> Callable[..., Any]:
    def encode(variables: Any, image: Any) -> Any:
        """Return only what later stages use, so the compiler can leave out the rest."""
        features = _call(model, "encode_image", variables, image)
        return features.skip8, features.skip4, features.pix_feat, features.key

    return encode


def _decode(model: Any) -> Callable[..., Any]:
    def decode(variables: Any, features: Any, pixel: Any, sensory: Any) -> Any:
        decoded = _call(model, "decode_mask", variables, features, pixel, sensory)
        prob, _ = _call(model, "finish", variables, decoded.logits)
        return prob, _call(model, "update_sensory", variables, sensory, decoded.sensory_input)

    return decode


def video_seconds(size: tuple[int, int]) -> float:
    """Return the seconds per frame of a running video: the median of --repeats memory intervals."""
    import numpy as np

    from s3_jax.analysis.workloads import random_frames, random_variables
    from s3_jax.propagation.session import Session

    config, every = MODELS[MODEL.value], _propagation().mem_every
    session = Session(config, random_variables(config), _propagation(), dtype=DTYPE.value)
    columns = np.arange(size[1]) * (2 * OBJECTS.value + 1) // size[1]  # a stripe for every object
    session.add(np.tile(np.where(columns % 2, columns // 2 + 1, 0), (size[0], 1)))
    frames = itertools.cycle(random_frames(8, size))
    count = 1 + every * (2 + REPEATS.value)  # the mask's frame, and two intervals to get going
    ends = []
    for result in session.propagate(itertools.islice(frames, count)):
        result.index_mask()
        ends.append(time.perf_counter())
    return statistics.median(np.diff(ends[2 * every :: every])) / every


def _summarize(seconds: float) -> None:
    """Print the seconds per frame of a video, compared with the published release if known."""
    peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\n{1 / seconds:.2f} frames/s in a video, on average over memory intervals of "
          f"{_propagation().mem_every} frames; peak resident memory "
          f"{peak_memory:.2f} GB")  # fmt: skip
    pytorch = PYTORCH_SECONDS.get(MODEL.value)
    if pytorch and (SIZE.value, OBJECTS.value, DTYPE.value) == PYTORCH_SETTING:
        print(f"published PyTorch release, recorded at 160 to 180 GFLOP/s: {pytorch:.2f} s "
              f"for an ordinary frame; ours takes {seconds / pytorch:.2f} of that")  # fmt: skip


def _write_csv(path: Path, rows: list[Row]) -> None:
    header = [field.name for field in dataclasses.fields(Row)]
    write_csv(path, [header, *map(dataclasses.astuple, rows)])
