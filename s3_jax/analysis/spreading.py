"""Communication and memory of programs over several devices, from the compiled programs.

Nothing is run, so virtual devices on one CPU show what the same number of real devices would hold.
"""

import collections
import dataclasses
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from s3_jax.analysis.costs import COLLECTIVES
from s3_jax.analysis.hlo import parse_program
from s3_jax.analysis.programs import TrainingTask, tree_bytes
from s3_jax.config import ModelConfig, PropagationConfig
from s3_jax.models.s3 import S3
from s3_jax.models.variables import variable_shapes
from s3_jax.propagation.frame import Network
from s3_jax.propagation.geometry import network_geometry
from s3_jax.propagation.scan import scan
from s3_jax.propagation.state import init_state as video_state
from s3_jax.propagation.step import step
from s3_jax.training.clip import ClipBatch
from s3_jax.training.clip_loss import make_trainer
from s3_jax.training.parallel import devices_as, replica_axes
from s3_jax.training.run_config import Form
from s3_jax.training.step import init_state

FORMS = get_args(Form)
FRAMES = 3  # of a scan; a loop's program does not depend on the number


@dataclasses.dataclass(frozen=True)
class SpreadProgram:
    """Costs of a program over several devices.

    collectives: number of instructions that exchange data between devices, by kind.
    state: bytes that one device holds between steps.
    temporaries: further bytes that one device needs within a step.
    """

    name: str
    collectives: dict[str, int]
    state: int
    temporaries: int


def count_collectives(text: str) -> dict[str, int]:
    """Count the instructions of a compiled program's text that exchange data, by kind."""
    found: collections.Counter[str] = collections.Counter()
    for computation in parse_program(text).computations.values():
        kinds = (one.opcode.removesuffix("-start") for one in computation.instructions.values())
        found.update(kind for kind in kinds if kind in COLLECTIVES)
    return dict(found)


def video_programs(
    model: ModelConfig, config: PropagationConfig, size: tuple[int, int], objects: int
) -> list[SpreadProgram]:
    """Compile step and scan for one video per device, under a NamedSharding over videos."""
    mesh = Mesh(jax.devices(), ("videos",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    of_videos = NamedSharding(mesh, PartitionSpec("videos"))
    geometry = network_geometry(size, model)
    one_state = jax.eval_shape(lambda: video_state(model, config, geometry.padded, objects))
    leaves, structure = jax.tree.flatten(one_state)

    def advance(run: Any, variables: Any, leaves: Any, since: jax.Array, images: jax.Array) -> Any:
        """Advance one video; all share memory frames, so conditionals remain under vmap."""
        state = jax.tree.unflatten(structure, leaves).replace(since_memory=since)
        state, prob = run(Network(S3(model), variables), state, images)
        return jax.tree.leaves(state), state.since_memory, prob

    def program(name: str, run: Any, images: tuple[int, ...], dtype: Any) -> SpreadProgram:
        """Compile a program over all videos, and return its costs."""
        mapped = jax.vmap(
            lambda *inputs: advance(run, *inputs),
            in_axes=(None, 0, None, 0), out_axes=(0, None, 0),
        )  # fmt: skip
        compiled = jax.jit(
            mapped,
            in_shardings=(everywhere, of_videos, everywhere, of_videos),
            out_shardings=(of_videos, everywhere, of_videos),
            donate_argnums=1,
        ).lower(
            variable_shapes(model),
            [jax.ShapeDtypeStruct((mesh.size, *x.shape), x.dtype) for x in leaves],
            one_state.since_memory,
            jax.ShapeDtypeStruct((mesh.size, *images), dtype),
        )
        frames = int(np.prod(images, dtype=int)) * jnp.dtype(dtype).itemsize
        return _described(name, compiled.compile(), frames)

    def one_step(network: Network, state: Any, images: jax.Array) -> Any:
        """Advance by one frame."""
        return step(network, config, state, images)

    def whole_scan(network: Network, state: Any, images: jax.Array) -> Any:
        """Advance by several frames."""
        return scan(network, config, geometry, state, images)

    return [
        program("step", one_step, (1, *geometry.padded, 3), jnp.float32),
        program("scan", whole_scan, (FRAMES, *size, 3), jnp.uint8),
    ]


def training_program(task: TrainingTask, form: Form) -> SpreadProgram:
    """Compile the training step in one of the three forms on all devices."""
    model = S3(task.model, axis_name=replica_axes(form), dtype=jnp.dtype(task.dtype))
    trainer, devices = make_trainer(model, task.step), devices_as(form)
    state = jax.eval_shape(lambda v: init_state(trainer, v, 0), variable_shapes(task.model))
    clips = (task.batch_size, task.frames, task.crop, task.crop)
    batch = ClipBatch(
        frames=jax.ShapeDtypeStruct((*clips, 3), jnp.uint8),  # type: ignore[arg-type]
        masks=jax.ShapeDtypeStruct(clips, jnp.uint8),  # type: ignore[arg-type]
        num_objects=jax.ShapeDtypeStruct(clips[:1], jnp.int32),  # type: ignore[arg-type]
    )
    update: Any = devices.update(trainer)
    lowered = update.lower(devices.describe_state(state), devices.describe_batch(batch))
    return _described(form, lowered.compile(), tree_bytes(batch) // jax.device_count())


def _described(name: str, compiled: Any, inputs: int) -> SpreadProgram:
    """Return a program's costs. inputs: bytes per device of the arguments that each step brings."""
    use = compiled.memory_analysis()
    return SpreadProgram(
        name,
        count_collectives(compiled.as_text()),
        use.argument_size_in_bytes - inputs,
        use.temp_size_in_bytes,
    )
