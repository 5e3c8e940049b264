"""The programs of training and segmentation, lowered for devices that are not attached.

They are the same as in real runs: `training.parallel.parallel_step` and `propagation.scan.scan`.
Nothing is computed here, and arrays are only described.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from s3_jax.config import ModelConfig, PropagationConfig
from s3_jax.errors import InputError
from s3_jax.models.s3 import S3
from s3_jax.models.variables import variable_shapes
from s3_jax.ops.backend import compiling_for
from s3_jax.propagation import state as video
from s3_jax.propagation.frame import Network
from s3_jax.propagation.geometry import network_geometry
from s3_jax.propagation.scan import scan
from s3_jax.training.clip import ClipBatch
from s3_jax.training.clip_loss import make_trainer
from s3_jax.training.parallel import REPLICAS, parallel_step
from s3_jax.training.run_config import RunConfig
from s3_jax.training.stages import stage_model
from s3_jax.training.step import init_state
from s3_jax.training.step_config import MAIN_TRAINING, StepConfig

LONG_VIDEO = PropagationConfig(long_term=True)
Shapes = Any  # a pytree of jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class TrainingTask:
    """A training step.

    batch_size: number of clips over all devices.
    crop: side of the frames in pixels.
    """

    model: ModelConfig
    batch_size: int = 16
    frames: int = 8
    crop: int = 480
    dtype: str = "bfloat16"
    trainable_blocks: tuple[int, ...] = ()
    step: StepConfig = MAIN_TRAINING


@dataclasses.dataclass(frozen=True)
class PropagationTask:
    """Segmentation of `frames` frames of `size` (height, width) with `objects` objects.

    encode_at_once: frames that pass through the image encoder together.
    """

    model: ModelConfig
    size: tuple[int, int] = (480, 864)
    objects: int = 3
    frames: int = 10
    dtype: str = "bfloat16"
    config: PropagationConfig = LONG_VIDEO
    encode_at_once: int = 1


@dataclasses.dataclass(frozen=True)
class Traced:
    """A program to compile, and the bytes it holds on every device, by name."""

    lowered: jax.stages.Lowered
    held: dict[str, int]
    frames: int


def trace_training(task: TrainingTask, devices: Sequence[jax.Device]) -> Traced:
    """Trace the training step on these devices.

    Raises:
      InputError: the batch cannot be divided over the devices and micro-batches.
    """
    rows, remainder = divmod(task.batch_size, len(devices))
    if remainder or rows % task.step.accumulate:
        raise InputError(
            f"a batch of {task.batch_size} cannot be divided over {len(devices)} devices and "
            f"{task.step.accumulate} micro-batches; change the batch size or the topology"
        )
    model = S3(task.model, trainable_blocks=task.trainable_blocks, axis_name=REPLICAS,
               dtype=jnp.dtype(task.dtype))  # fmt: skip
    with compiling_for(devices[0].platform):
        trainer = make_trainer(model, task.step)
        variables = variable_shapes(task.model)
        state = jax.eval_shape(lambda v: init_state(trainer, v, 0), variables)
        frames = (len(devices), rows, task.frames, task.crop, task.crop)
        batch = _batch_shapes(frames)
        step: Any = parallel_step(trainer, devices)
        lowered = step.lower(state, batch)
    held = {
        "parameters": tree_bytes(state.params),
        "optimizer": tree_bytes((state.opt_state, state.ema)),
        "batch": tree_bytes(batch) // len(devices),
    }
    return Traced(lowered, held, rows * task.frames)


def trace_propagation(task: PropagationTask, device: jax.Device) -> Traced:
    """Trace the scan over frames on one device; the state stays there and is updated in place."""
    dtype = jnp.dtype(task.dtype)
    model = S3(task.model, dtype=dtype)
    geometry = network_geometry(task.size, task.model, task.config.max_internal_size)

    def run(variables: Any, state: video.VideoState, frames: jax.Array) -> Any:
        """Segment the frames."""
        network = Network(model, variables)
        return scan(
            network, task.config, geometry, state, frames, encode_at_once=task.encode_at_once
        )

    with compiling_for(device.platform):
        variables = variable_shapes(task.model)
        state = jax.eval_shape(
            lambda: video.init_state(
                task.model, task.config, geometry.padded, task.objects, dtype.type
            )
        )
        frames = jax.ShapeDtypeStruct((task.frames, *task.size, 3), jnp.uint8)
        place = SingleDeviceSharding(device)
        on_device = jax.jit(run, donate_argnums=1, in_shardings=place, out_shardings=place)
        lowered = on_device.lower(variables, state, frames)
    held = {
        "parameters": tree_bytes(variables),
        "video state": tree_bytes(state),
        "frames": tree_bytes(frames),
    }
    return Traced(lowered, held, task.frames)


def _batch_shapes(masks: tuple[int, ...]) -> Shapes:
    """Return the shapes of a batch whose masks have this shape: (devices rows t H W)."""
    return ClipBatch(
        frames=jax.ShapeDtypeStruct((*masks, 3), jnp.uint8),  # type: ignore[arg-type]
        masks=jax.ShapeDtypeStruct(masks, jnp.uint8),  # type: ignore[arg-type]
        num_objects=jax.ShapeDtypeStruct(masks[:2], jnp.int32),  # type: ignore[arg-type]
    )


def task_of_stage(run: RunConfig, name: str | None = None) -> TrainingTask:
    """Return the step of a training run's stage, by default the last one.

    Raises:
      InputError: the run has no such stage.
    """
    stages = {stage.name: stage for stage in run.stages}
    name = name or run.stages[-1].name
    if name not in stages:
        raise InputError(f"--stage={name} is none of the configuration's: {', '.join(stages)}")
    stage = stages[name]
    return TrainingTask(
        model=stage_model(run, stage),
        batch_size=stage.batch_size,
        frames=stage.data.num_frames,
        crop=stage.data.crop,
        dtype=stage.dtype,
        trainable_blocks=stage.trainable_blocks,
        step=stage.step,
    )


def tree_bytes(tree: Shapes) -> int:
    """Return the bytes of all arrays of a pytree, without padding."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
