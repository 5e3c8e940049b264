"""Share of a device's peak arithmetic that training reaches."""

import dataclasses

import jax

from s3_jax.analysis.jaxpr_arithmetic import traced_flops
from s3_jax.training.parts import StepDone

# Peak dense bfloat16 FLOPs per second, as published by vendors, by the prefix of JAX's device kind;
# the first match counts.
PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA L4": 121e12,
    "Tesla V100": 125e12,
    "Tesla T4": 65e12,
}


def peak_flops(device_kind: str) -> float | None:
    """Return the peak FLOPs per second of a device kind, or None if it is unknown."""
    return next((peak for name, peak in PEAKS.items() if device_kind.startswith(name)), None)


def step_flops(done: StepDone) -> float:
    """Return the FLOPs of a step's products and convolutions over the rows of this process."""
    rows = jax.tree.leaves(done.taken)[0].shape[0]
    return traced_flops(done.program) * rows / done.program_rows


@dataclasses.dataclass
class ShareOfPeak:
    """Callback that adds arithmetic throughput to the metrics once a stage begins.

    The metrics are `teraflops_per_second` of this process's devices and, where their peak is known,
    `share_of_peak`.
    """

    stage: str = ""

    def __call__(self, done: StepDone) -> None:
        if done.stage == self.stage:
            return
        self.stage = done.stage
        devices = jax.local_devices()
        peak = peak_flops(devices[0].device_kind)
        done.journal.arithmetic = (
            step_flops(done),
            None if peak is None else peak * len(devices),
        )
