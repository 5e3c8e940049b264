"""Replicas of the training step on many devices and hosts.

Every process (host) runs the same program and gives its own rows; every local device is a
replica. The state is one array per leaf, a copy of it on every device, so that saving and
restoring it does not depend on how many replicas there are.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from s3_jax.training.parts import Batch, Trainer
from s3_jax.training.state import Metrics, TrainState
from s3_jax.training.step import train_step

T = TypeVar("T")
REPLICAS = "replicas"  # the mapped axis: `S3(axis_name=REPLICAS)`


def join_processes(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Connects this process with the others; to be called before anything uses a device.

    Args:
      coordinator: "host:port" of the first process; processes: how many; process: which is this.
        On TPU pods and clusters that announce themselves nothing needs to be given.

    Raises:
      ValueError: only some of the three are given.
    """
    given = [x is not None for x in (coordinator, processes, process)]
    if any(given) and not all(given):
        raise ValueError(
            "coordinator, processes and process go together: give all three, or none where the "
            f"cluster announces itself (got {coordinator}, {processes}, {process})"
        )
    jax.distributed.initialize(coordinator, processes, process)


def parallel_step(
    trainer: Trainer, devices: Sequence[jax.Device] | None = None
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """`train_step` on all devices of all processes at once.

    The returned function takes a state from `replicate` (which it consumes: use the one returned)
    and a batch from `shard_batch`, and gives the next state and metrics, equal everywhere.

    Args:
      devices: other ones, such as those of a topology that is only compiled for.

    Raises:
      ValueError: the trainer does not name the axis `REPLICAS`.
    """
    if trainer.axis_name != REPLICAS:
        raise ValueError(
            f"the model's axis_name is {trainer.axis_name!r}; make it S3(..., "
            f"axis_name={REPLICAS!r}), or replicas drift apart"
        )
    return jax.pmap(
        functools.partial(train_step, trainer),
        axis_name=REPLICAS,
        in_axes=(None, 0),
        out_axes=(None, None),
        donate_argnums=0,
        devices=devices,
    )


def replicate(tree: T) -> T:
    """A copy on every local device; the arrays keep their shapes."""
    return jax.device_put(tree, _sharding(PartitionSpec()))


def unreplicate(tree: T) -> T:
    """The copy on this process's first device."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def shard_batch(batch: T) -> T:
    """This process's rows, spread in order over its devices.

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
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (REPLICAS,))
    return NamedSharding(mesh, spec)
