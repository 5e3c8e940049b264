"""The training step on many devices and hosts, in one of three forms.

    pmap   a replica on every device, each with a copy of the state
    mesh   one program, `jax.jit` over a mesh; every device has a copy of the state
    fsdp   like mesh, but each device holds only a part of every large array of the state

Every process (host) runs the same program on its own rows; the losses of all forms are equal up to
rounding. Checkpoints hold the same arrays whatever the form and the number of devices, so a run can
be continued in another form.

The mesh has the axes "data" and "model". Rows of a batch are sharded over both, the state over
"model", which has one device in the form "mesh" and all in "fsdp". In every form, a device computes
the gradients of its own rows with all parameters; then they are averaged, once. In "fsdp", a device
keeps and updates only its part of the state.
"""

import functools
import pickle
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from s3_jax.models.layers import Axes
from s3_jax.training.parts import Batch, Trainer
from s3_jax.training.run_config import Form
from s3_jax.training.state import Metrics, TrainState
from s3_jax.training.step import OfReplica, Step, train_step

T = TypeVar("T")
Update = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
REPLICAS = "replicas"  # the mapped axis of `jax.pmap`
AXES = ("data", "model")  # of a mesh
LEAST_SHARDED = 1024  # elements of the smallest array that is sharded
# On CPUs, XLA may otherwise start independent collectives in a different order on each device. They
# then wait for one another until XLA ends the process.
IN_ORDER = {"xla_cpu_enable_concurrency_optimized_scheduler": False}


def join_processes(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Connect this process with the others; call it before anything uses a device.

    Args:
      coordinator: "host:port" of the first process.
      processes: number of processes.
      process: index of this one.

    TPU pods, and clusters that JAX detects, need none of the three.

    Raises:
      ValueError: only some of the three are given.
    """
    given = [x is not None for x in (coordinator, processes, process)]
    if any(given) and not all(given):
        raise ValueError(
            "coordinator, processes and process go together: give all three, or none if JAX "
            f"detects the cluster (got {coordinator}, {processes}, {process})"
        )
    jax.distributed.initialize(coordinator, processes, process)


@runtime_checkable
class Devices(Protocol):
    """Protocol for running the step on the devices of all processes."""

    def update(self, trainer: Trainer, step: Step = train_step) -> Update:
        """Compile a trainer's step for placed states, which it donates, and placed batches."""
        ...

    def put_state(self, state: TrainState) -> TrainState:
        """Place a state, equal in all processes, on the devices."""
        ...

    def put_batch(self, batch: T) -> T:
        """Place this process's rows on the devices."""
        ...

    def get(self, tree: T) -> T:
        """Return the whole arrays of a placed state, readable by this process."""
        ...

    def describe_state(self, state: TrainState) -> TrainState:
        """Convert the shapes of a state to those of a placed state, to compile without data."""
        ...

    def describe_batch(self, batch: T) -> T:
        """Convert the shapes of the rows of all processes to those of a placed batch."""
        ...


def replica_axes(form: Form) -> Axes:
    """Return the axes of the replicas: the `axis_name` of the network that a loss runs."""
    return REPLICAS if form == "pmap" else AXES


def devices_as(form: Form) -> Devices:
    """Return all devices in one of the three forms."""
    return Replicas() if form == "pmap" else MeshDevices(1 if form == "mesh" else None)


class Replicas:
    """Devices under `jax.pmap`: a replica on every device."""

    def update(self, trainer: Trainer, step: Step = train_step) -> Update:
        return parallel_step(trainer, step=step)

    def put_state(self, state: TrainState) -> TrainState:
        return replicate(state)

    def put_batch(self, batch: T) -> T:
        return shard_batch(batch)

    def get(self, tree: T) -> T:
        return unreplicate(tree)

    def describe_state(self, state: TrainState) -> TrainState:
        return state

    def describe_batch(self, batch: T) -> T:
        devices = jax.device_count()

        def split(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return x.update(shape=(devices, x.shape[0] // devices, *x.shape[1:]))

        return jax.tree.map(split, batch)


class MeshDevices:
    """Devices under `jax.jit` over a mesh of all devices.

    model: number of devices along the axis that the state is sharded over; None for all.
    """

    def __init__(self, model: int | None = 1):
        devices = np.array(jax.devices())
        shape = (1, devices.size) if model is None else (devices.size // model, model)
        self.mesh = Mesh(devices.reshape(shape), AXES, axis_types=(AxisType.Auto,) * 2)

    def update(self, trainer: Trainer, step: Step = train_step) -> Update:
        _expect_axes(trainer, AXES)

        def placed(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            """Perform the step, and keep the state's placement."""
            after, metrics = step(trainer, state, batch, self._on_replicas)
            return jax.lax.with_sharding_constraint(after, self._shardings(after)), metrics

        options = IN_ORDER if self.mesh.devices.flat[0].platform == "cpu" else None
        return jax.jit(placed, donate_argnums=0, compiler_options=options)

    def put_state(self, state: TrainState) -> TrainState:
        return jax.device_put(state, self._shardings(state))

    def put_batch(self, batch: T) -> T:
        put = functools.partial(jax.make_array_from_process_local_data, self._rows)
        return jax.tree.map(lambda x: put(np.asarray(x)), batch)

    def get(self, tree: T) -> T:
        return jax.tree.map(_whole, tree)

    def describe_state(self, state: TrainState) -> TrainState:
        return jax.tree.map(lambda x, s: x.update(sharding=s), state, self._shardings(state))

    def describe_batch(self, batch: T) -> T:
        return jax.tree.map(lambda x: x.update(sharding=self._rows), batch)

    def _on_replicas(self, function: OfReplica) -> OfReplica:
        """Return the function of rows of all devices, each of which runs it on its own rows.

        During the function, a device holds all values that replicas share, such as parameters, and
        only its part of those of the result, such as gradients. Left to itself, XLA would split the
        activations along the parameters' parts, and exchange data in every layer of every frame.
        """
        equal = PartitionSpec()
        mapped = jax.shard_map(
            function, mesh=self.mesh, in_specs=(equal, PartitionSpec(AXES)), out_specs=equal
        )

        def run(shared: Any, rows: Any) -> Any:
            """Return the result, placed like a state."""
            result = mapped(shared, rows)
            return jax.lax.with_sharding_constraint(result, self._shardings(result))

        return run

    @property
    def _rows(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(AXES))

    def _shardings(self, tree: Any) -> Any:
        return jax.tree.map(lambda x: NamedSharding(self.mesh, self._spec(x.shape)), tree)

    def _spec(self, shape: tuple[int, ...]) -> PartitionSpec:
        """Shard an array along its longest divisible axis; replicate small arrays."""
        count = self.mesh.shape["model"]
        axes = [i for i, size in enumerate(shape) if size % count == 0]
        if count == 1 or np.prod(shape, dtype=int) < LEAST_SHARDED or not axes:
            return PartitionSpec()
        longest = max(axes, key=lambda i: shape[i])
        return PartitionSpec(*("model" if i == longest else None for i in range(len(shape))))


def from_all_processes(value: T) -> list[T]:
    """Return the picklable values of all processes, in order; every process must call it."""
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(data.size))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: data.size] = data
    rows = multihost_utils.process_allgather(padded)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def parallel_step(
    trainer: Trainer, devices: Sequence[jax.Device] | None = None, step: Step = train_step
) -> Update:
    """Return the step for all devices of all processes, with a replica on each.

    The returned function takes a state from `replicate` and a batch from `shard_batch`. It donates
    the state, and returns the next state and the metrics, equal on all replicas.

    Args:
      devices: devices to use instead, such as those of a topology that is only compiled for and not
        attached.

    Raises:
      ValueError: the trainer's axis name is not `REPLICAS`.
    """
    _expect_axes(trainer, REPLICAS)
    return jax.pmap(
        functools.partial(step, trainer),
        axis_name=REPLICAS,
        in_axes=(None, 0),
        out_axes=(None, None),
        donate_argnums=0,
        devices=devices,
    )


def _expect_axes(trainer: Trainer, axes: Axes) -> None:
    if trainer.axis_name != axes:
        raise ValueError(
            f"the model's axis_name is {trainer.axis_name!r}; make it S3(..., axis_name={axes!r}), "
            "or replicas drift apart"
        )


def replicate(tree: T) -> T:
    """Copy a tree to every local device; the arrays keep their shapes."""
    return jax.device_put(tree, _sharding(PartitionSpec()))


def unreplicate(tree: T) -> T:
    """Return the copy on this process's first device."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def shard_batch(batch: T) -> T:
    """Split this process's rows, in order, over its devices.

    Args:
      batch: a pytree of arrays (b ...).

    Returns:
      Arrays (devices b/devices ...).

    Raises:
      ValueError: the rows cannot be divided equally.
    """
    devices, rows = jax.local_device_count(), jax.tree.leaves(batch)[0].shape[0]
    if rows % devices:
        raise ValueError(
            f"a batch of {rows} rows per process cannot be divided over {devices} devices; "
            f"make it a multiple of {devices}"
        )
    split = jax.tree.map(
        lambda x: np.asarray(x).reshape(devices, rows // devices, *x.shape[1:]), batch
    )
    return jax.device_put(split, _sharding(PartitionSpec(REPLICAS)))


def _sharding(spec: PartitionSpec) -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.local_devices()), (REPLICAS,)), spec)


def _whole(x: jax.Array) -> Any:
    """Return the whole array, or one device's copy if it is replicated."""
    if x.is_fully_replicated:
        return x.addressable_data(0)
    if x.is_fully_addressable:
        return jax.device_get(x)
    return multihost_utils.process_allgather(x, tiled=True)
