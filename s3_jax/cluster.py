"""Work on a Ray cluster, either an existing one or a temporary one on this machine.

    with connected("10.0.0.1:6379"):
        for place, result in spread(check, items, weights): ...

Ray is an extra, `pip install 's3_jax[ray]'`, and is imported only if a command is given `--ray`.
Arguments are pickled and sent to the other machines, which must have the same version of s3_jax.
Files must have the same paths on all machines.
"""

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from s3_jax.errors import InputError, reason

T = TypeVar("T")
R = TypeVar("R")
NEW = "new"  # instead of an address: workers on this machine
# Parts of the work per CPU: enough to balance the load, and few enough to keep overhead small.
PARTS_PER_CPU = 8
LOCAL_STORE = 100 * 2**20  # bytes; processes exchange little data
PATIENCE = 10  # seconds to wait for the cluster's head to answer


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """Connect to a Ray cluster until the block ends, and yield Ray.

    Args:
      address: address of the cluster's head; "auto" for the cluster that this machine belongs to;
        NEW for the cluster of the current Ray job or, outside a job, for workers on this machine.

    Raises:
      InputError: nothing answers at the address, or the cluster runs another version of Ray or
        Python.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's default, 15, yields to all else
    # Ray would start a process per CPU in advance, but actors need a different environment.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    import ray

    if address == NEW:
        address = os.environ.get("RAY_ADDRESS", "local")
    _expect_answer(address)
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": LOCAL_STORE}
    try:
        ray.init(address, logging_level=logging.ERROR, **(own if address == "local" else {}))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(f"--ray={address}: {reason(error)}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _expect_answer(address: str) -> None:
    """Connect to HOST:PORT or ray://HOST:PORT once, because Ray itself would retry forever."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        place = (parts.hostname, parts.port)
        if None not in place:
            socket.create_connection(place, PATIENCE).close()
    except (OSError, ValueError) as error:
        raise InputError(
            f"--ray={address}: {reason(error)}; give the HOST:PORT that `ray start --head` printed"
        ) from error


def spread(
    function: Callable[[T], R], items: Sequence[T], weights: Sequence[int]
) -> Iterator[tuple[int, R]]:
    """Apply a function to items on the cluster, and yield (index, result) as items finish.

    If a machine is lost, its items are processed again elsewhere. Every item is yielded once.

    Args:
      weights: time that each item takes, in any unit.
    """
    import ray

    def run(part: Sequence[tuple[int, T]]) -> list[tuple[int, R]]:
        """Apply the function to the items of one part."""
        return [(place, function(item)) for place, item in part]

    # Results depend only on files, so items can be retried after any number of machine failures.
    task = ray.remote(run).options(max_retries=-1, scheduling_strategy="SPREAD")
    count = int(ray.cluster_resources().get("CPU", 1)) * PARTS_PER_CPU
    waiting = [task.remote([(i, items[i]) for i in part]) for part in even_parts(weights, count)]
    while waiting:
        done, waiting = ray.wait(waiting)
        for reference in done:
            yield from ray.get(reference)


def even_parts(weights: Sequence[int], count: int) -> list[list[int]]:
    """Divide item indices into at most `count` parts of about equal weight, the heaviest first."""
    parts: list[list[int]] = [[] for _ in range(max(1, min(count, len(weights))))]
    totals = [0] * len(parts)
    for place in sorted(range(len(weights)), key=lambda i: (-weights[i], i)):
        lightest = totals.index(min(totals))
        parts[lightest].append(place)
        totals[lightest] += weights[place]
    order = sorted(range(len(parts)), key=lambda i: -totals[i])
    return [parts[i] for i in order if parts[i]]


def worker_options(resources: Mapping[str, float], workers: int | None) -> list[dict[str, Any]]:
    """Return Ray's options for one worker on every device of a cluster.

    Args:
      resources: the cluster's resources, as Ray lists them.
      workers: number of workers; by default one per GPU or TPU chip, or else one per machine.

    Raises:
      InputError: there are more workers than devices, or than CPUs if there are no other devices.
    """
    for kind, asked in (("GPU", {"num_gpus": 1}), ("TPU", {"resources": {"TPU": 1}})):
        devices = int(resources.get(kind, 0))
        if devices:
            return [{"num_cpus": 0, **asked}] * _at_most(devices, workers, kind)
    machines = sum(name.startswith("node:") for name in resources) - (
        "node:__internal_head__" in resources
    )
    cpus = int(resources.get("CPU", 1))
    count = _at_most(cpus, workers or max(1, machines), "CPU")
    each = cpus // count
    # Threads of XLA's CPU client; otherwise every worker would start one per CPU of the machine.
    # One thread splits matrix products into different blocks than several threads, and so rounds
    # differently.
    threads = str(max(2, each))
    limited = {"env_vars": {"NPROC": threads, "OMP_NUM_THREADS": threads}}
    return [{"num_cpus": each, "runtime_env": limited}] * count


def _at_most(devices: int, workers: int | None, kind: str) -> int:
    if workers is not None and workers > devices:
        raise InputError(
            f"--ray_workers is {workers}, but the cluster has {devices} of {kind}: ask for at most "
            "that many"
        )
    return workers or devices
