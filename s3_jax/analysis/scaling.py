"""Measured growth of cost with objects, video length, resolution, batch size and replicas.

Measurements include wall-clock time, the process's CPU time, which other programs on the machine
disturb less, and the memory that the compiled program requests.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from s3_jax.analysis import workloads
from s3_jax.analysis.programs import TrainingTask
from s3_jax.config import ModelConfig, PropagationConfig
from s3_jax.models.s3 import S3
from s3_jax.propagation.frame import Network
from s3_jax.propagation.geometry import network_geometry
from s3_jax.propagation.scan import scan
from s3_jax.propagation.state import VideoState
from s3_jax.training.clip_loss import make_trainer
from s3_jax.training.parallel import REPLICAS, parallel_step
from s3_jax.training.step import init_state


@dataclasses.dataclass(frozen=True)
class Point:
    """A measurement.

    x: the value on the curve's axis.
    items: frames (or clips) processed in the measured time.
    seconds, cpu_seconds: for all items, the minimum over several runs.
    memory_gb: of the program.
    """

    curve: str
    x: int
    setting: str
    items: int
    seconds: float
    cpu_seconds: float
    memory_gb: float

    @property
    def per_second(self) -> float:
        """Items per second of wall-clock time."""
        return self.items / self.seconds

    @property
    def cpu_milliseconds(self) -> float:
        """CPU time per item."""
        return 1e3 * self.cpu_seconds / self.items


@dataclasses.dataclass(frozen=True)
class Video:
    """A network compiled for a video: `run(state, frames)` returns the next state."""

    run: Callable[..., Any]
    variables: Any
    memory_gb: float

    def measure(
        self, state: VideoState, frames: np.ndarray
    ) -> tuple[VideoState, tuple[float, float]]:
        """Return the state after the frames, and the (wall-clock, CPU) seconds that it took."""
        begin = time.perf_counter(), time.process_time()
        state, _ = jax.block_until_ready(self.run(self.variables, state, frames))
        return state, (time.perf_counter() - begin[0], time.process_time() - begin[1])


def compile_video(
    model: ModelConfig,
    config: PropagationConfig,
    state: VideoState,
    frames: np.ndarray,
    encode_at_once: int = 1,
) -> Video:
    """Compile the scan over these frames."""
    geometry = network_geometry((frames.shape[1], frames.shape[2]), model)
    variables = workloads.random_variables(model)

    def run(variables: Any, state: VideoState, frames: Any) -> Any:
        """Segment the frames, and keep only the last frame's probabilities."""
        network = Network(S3(model), variables)
        state, prob = scan(network, config, geometry, state, frames, encode_at_once=encode_at_once)
        return state, prob[-1]

    compiled = jax.jit(run, donate_argnums=1).lower(variables, state, frames).compile()
    return Video(compiled, variables, program_gb(compiled))


def program_gb(compiled: Any) -> float:
    """Return the memory of a compiled program with its arguments and results, in GB."""
    use = compiled.memory_analysis()
    results = use.output_size_in_bytes - use.alias_size_in_bytes
    return (use.argument_size_in_bytes + results + use.temp_size_in_bytes) / 1e9


def frame_point(
    curve: str, x: int, model: ModelConfig, config: PropagationConfig, size: tuple[int, int],
    objects: int, repeats: int, encode_at_once: int = 1,
) -> Point:  # fmt: skip
    """Measure frames of a long video with full memories.

    The number of frames is the smallest multiple of both the memory interval and the number of
    frames encoded at once, so it contains memory frames at the usual rate.
    """
    count = math.lcm(config.mem_every, encode_at_once)
    frames = workloads.random_frames(count, size)
    state = workloads.full_state(model, config, size, objects)
    video = compile_video(model, config, state, frames, encode_at_once)
    times = []
    for _ in range(repeats):
        state, taken = video.measure(state, frames)
        times.append(taken)
    seconds, cpu_seconds = _least(times)
    setting = (f"{size[0]}x{size[1]}, {objects} object(s), chunk_size {config.chunk_size}, "
               f"{encode_at_once} frame(s) encoded at once")  # fmt: skip
    return Point(curve, x, setting, len(frames), seconds, cpu_seconds, video.memory_gb)


def objects_curve(
    model: ModelConfig, size: tuple[int, int], counts: Sequence[int], chunk_size: int, repeats: int
) -> Iterator[Point]:
    """Yield measurements over the number of objects."""
    config = PropagationConfig.suiting(model, chunk_size=chunk_size)
    for count in counts:
        yield frame_point("objects", count, model, config, size, count, repeats)


def resolution_curve(model: ModelConfig, heights: Sequence[int], repeats: int) -> Iterator[Point]:
    """Yield measurements over the height of 16:9 frames with one object."""
    config = PropagationConfig.suiting(model)
    for height in heights:
        size = height, round(height * 16 / 9)
        yield frame_point("resolution", height, model, config, size, 1, repeats)


def together_curve(
    model: ModelConfig, size: tuple[int, int], counts: Sequence[int], repeats: int
) -> Iterator[Point]:
    """Yield measurements over the number of frames encoded at once, as a stored video allows."""
    config = PropagationConfig.suiting(model)
    for count in counts:
        yield frame_point("together", count, model, config, size, 1, repeats, encode_at_once=count)


def length_curve(
    model: ModelConfig, size: tuple[int, int], lengths: Sequence[int], part: int
) -> Iterator[Point]:
    """Yield measurements over a video's length with long-term memory.

    Each one covers the last `part` frames of that length.
    """
    config = PropagationConfig.suiting(model, long_term=True)
    frames = workloads.random_frames(part, size)
    state = workloads.full_state(model, config, size, 1)
    video = compile_video(model, config, state, frames)
    done = 0
    setting = f"{size[0]}x{size[1]}, 1 object, the last {part} frames"
    while done < max(lengths):
        state, (seconds, cpu_seconds) = video.measure(state, frames)
        done += part
        if done in lengths:
            yield Point("length", done, setting, part, seconds, cpu_seconds, video.memory_gb)


def training_point(curve: str, x: int, task: TrainingTask, replicas: int, repeats: int) -> Point:
    """Measure a training step on this number of local devices."""
    devices = jax.local_devices()[:replicas]
    model = S3(task.model, axis_name=REPLICAS, dtype=jax.numpy.dtype(task.dtype))
    trainer = make_trainer(model, task.step)
    state = init_state(trainer, workloads.random_variables(task.model), 0)
    batch = workloads.random_batch(task, replicas)
    step: Any = parallel_step(trainer, devices)
    memory = program_gb(step.lower(state, batch).compile())
    times = []
    for _ in range(repeats + 1):  # the first run compiles
        begin = time.perf_counter(), time.process_time()
        state, _ = jax.block_until_ready(step(state, batch))
        times.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    seconds, cpu_seconds = _least(times[1:])
    setting = (f"{task.frames} frames of {task.crop}x{task.crop}, batch {task.batch_size}, "
               f"{replicas} replica(s)")  # fmt: skip
    return Point(curve, x, setting, task.batch_size, seconds, cpu_seconds, memory)


def training_curves(
    task: TrainingTask, batches: Sequence[int], replicas: Sequence[int], repeats: int
) -> Iterator[Point]:
    """Yield measurements over the batch on one device, and over replicas with one clip each."""
    for batch in batches:
        alone = dataclasses.replace(task, batch_size=batch)
        yield training_point("batch", batch, alone, 1, repeats)
    for count in replicas:
        spread = dataclasses.replace(task, batch_size=count)
        yield training_point("replicas", count, spread, count, repeats)


def _least(times: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(seconds for seconds, _ in times), min(cpu for _, cpu in times)
