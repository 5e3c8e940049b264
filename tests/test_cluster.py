"""Division of work over a cluster; tests/tools/test_ray.py has tests on an actual cluster."""

import pytest

from s3_jax.cluster import even_parts, worker_options
from s3_jax.errors import InputError

CPUS = {"CPU": 8.0, "node:10.0.0.1": 1.0, "node:10.0.0.2": 1.0, "node:__internal_head__": 1.0}


def test_parts_are_even_and_hold_everything_once() -> None:
    weights = [9, 1, 1, 1, 5, 4, 3, 3]
    parts = even_parts(weights, 3)
    assert sorted(place for part in parts for place in part) == list(range(8))
    assert [sum(weights[i] for i in part) for part in parts] == [9, 9, 9]
    assert even_parts([1, 2], 8) == [[1], [0]]
    assert even_parts([], 8) == []


def test_an_actor_for_every_accelerator() -> None:
    assert worker_options(CPUS | {"GPU": 4.0}, None) == [{"num_cpus": 0, "num_gpus": 1}] * 4
    two = worker_options(CPUS | {"TPU": 4.0}, 2)
    assert two == [{"num_cpus": 0, "resources": {"TPU": 1}}] * 2


@pytest.mark.parametrize(("workers", "cpus"), [(None, [4, 4]), (4, [2] * 4), (3, [2] * 3)])
def test_cpus_are_divided_among_the_workers(workers: int | None, cpus: list[int]) -> None:
    options = worker_options(CPUS, workers)
    assert [one["num_cpus"] for one in options] == cpus
    assert options[0]["runtime_env"]["env_vars"]["NPROC"] == str(cpus[0])


def test_a_worker_with_one_cpu_computes_as_one_with_several() -> None:
    """One thread rounds differently from two or more."""
    one = worker_options({"CPU": 2.0}, 2)[0]
    assert (one["num_cpus"], one["runtime_env"]["env_vars"]["NPROC"]) == (1, "2")


def test_more_workers_than_devices_are_refused() -> None:
    with pytest.raises(InputError, match=r"--ray_workers is 9, but the cluster has 8 of CPU"):
        worker_options(CPUS, 9)
