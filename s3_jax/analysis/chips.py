"""TPU generations for which programs can be planned, with their vendor's published numbers.

Numbers are per device as JAX counts them: a v4 or v5p chip, whose two cores act as one, or a v5e or
v6e chip. Source: the system architecture pages of the Cloud TPU documentation.
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device.

    hbm_bytes: size of main memory.
    hbm_bandwidth: of main memory, bytes per second.
    peak_flops: of bfloat16 matrix products, per second.
    link_bandwidth: to other chips, all links together, bytes per second.
    clock: cycles per second, derived from the peak and the size of the matrix units; converts the
      compiler's estimates from cycles to seconds.
    dimensions: number of sides of a topology.
    two_cores: the chip's two cores have to be configured to act as one device.
    """

    name: str
    hbm_bytes: int
    hbm_bandwidth: float
    peak_flops: float
    link_bandwidth: float
    clock: float
    dimensions: int
    two_cores: bool = False


CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip("v4", 32 * GIB, 1228e9, 275e12, 300e9, 1.05e9, dimensions=3, two_cores=True),
        Chip("v5e", 16 * GIB, 819e9, 197e12, 200e9, 1.5e9, dimensions=2),
        Chip("v5p", 95 * GIB, 2765e9, 459e12, 600e9, 1.75e9, dimensions=3),
        Chip("v6e", 32 * GIB, 1640e9, 918e12, 448e9, 1.75e9, dimensions=2),
    )
}
