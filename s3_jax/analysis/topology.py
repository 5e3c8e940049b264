"""TPU devices for compilation that are not attached to this machine.

The compiler is in the package libtpu, which is not needed for anything else.
"""

import dataclasses
import importlib.util
import math
import os
import re

import jax

from s3_jax.analysis.chips import CHIPS, Chip
from s3_jax.errors import InputError, reason

NO_COMPILER = (
    "the TPU compiler is not installed; install it with pip install 's3_jax[tpu]', or in a "
    "checkout with pip install -r requirements-tpu.txt (137 MB, Linux; no TPU is needed)"
)
# Slices by their names in clouds, which count cores (v4, v5p) or chips.
SLICES = {
    "v4-8": "v4:2x2x1",
    "v4-16": "v4:2x2x2",
    "v4-32": "v4:2x2x4",
    "v5e-4": "v5e:2x2",
    "v5e-8": "v5e:2x4",
    "v5e-16": "v5e:4x4",
    "v5p-8": "v5p:2x2x1",
    "v5p-16": "v5p:2x2x2",
    "v5p-32": "v5p:2x2x4",
    "v6e-4": "v6e:2x2",
    "v6e-8": "v6e:2x4",
    "v6e-16": "v6e:4x4",
}
_NAME = re.compile(r"^(v\d+\w?):(\d+(?:x\d+)*)$")
# Keeps the compiler from asking a cloud service on which machine it runs.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no TPU is touched, so several may compile at once
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Connected devices of one kind; `name` is a string such as "v5e:4x4"."""

    name: str
    chip: Chip
    devices: tuple[jax.Device, ...]


def has_compiler() -> bool:
    """Return True if libtpu is installed."""
    return importlib.util.find_spec("libtpu") is not None


def parse_topology(name: str) -> tuple[Chip, tuple[int, ...]]:
    """Parse generation and side lengths from "v5e:4x4" or a slice's name such as "v4-8".

    Raises:
      InputError: the generation is unknown, or the number of sides is wrong.
    """
    found = _NAME.match(SLICES.get(name, name))
    if not found or found.group(1) not in CHIPS:
        raise InputError(
            f"--topology={name} is unknown: write one of {', '.join(CHIPS)}, a colon and the "
            "number of chips along each side, like v5e:4x4 or v4:2x2x1, or one of "
            f"{', '.join(SLICES)}"
        )
    chip = CHIPS[found.group(1)]
    sides = tuple(int(n) for n in found.group(2).split("x"))
    if len(sides) != chip.dimensions or min(sides) < 1:
        example = "x".join("22" + "1" * (chip.dimensions - 2))
        raise InputError(
            f"--topology={name}: a {chip.name} has {chip.dimensions} sides of at least 1, "
            f"like {chip.name}:{example}"
        )
    return chip, sides


def open_topology(name: str) -> Topology:
    """Return the devices of a topology.

    Raises:
      InputError: the name is unknown, or the compiler is missing or does not know the topology.
    """
    chip, sides = parse_topology(name)
    if not has_compiler():
        raise InputError(NO_COMPILER)
    from jax.experimental import topologies

    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    layout = "x".join(map(str, sides))
    options: dict = {"chip_config_name": "megacore"} if chip.two_cores else {}
    if any(side % 2 for side in sides[:2]):  # fewer chips than a host usually has
        options["chips_per_host_bounds"] = (*sides[:2], 1)
    try:
        found = topologies.get_topology_desc(f"{chip.name}:{layout}", "tpu", **options)
    except Exception as error:
        raise InputError(f"--topology={name}: {reason(error)}") from error
    if len(found.devices) != math.prod(sides):
        raise InputError(
            f"--topology={name}: {len(found.devices)} devices where {math.prod(sides)} chips "
            "were expected; this version of libtpu counts cores"
        )
    return Topology(f"{chip.name}:{layout}", chip, tuple(found.devices))
