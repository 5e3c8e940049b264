"""How much of a device's peak arithmetic training reaches."""

import dataclasses

import jax
from jaxtyping import Array

from s3_jax.analysis.jaxpr_arithmetic import traced_flops
from s3_jax.training.parts import Batch, StepDone, Trainer
from s3_jax.training.state import TrainState
from s3_jax.training.step import train_step

# Dense bfloat16 products per second (two FLOPs each) by how JAX names devices, as vendors publish
# them; the first that a name begins with counts.
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
    """Peak of a device, None for one that is not known."""
    return next((peak for name, peak in PEAKS.items() if device_kind.startswith(name)), None)


def step_flops(trainer: Trainer, state: TrainState, batch: Batch) -> float:
    """FLOPs of matrix products and convolutions in a step over these rows, traced."""

    def step(state: TrainState, batch: Batch) -> list[Array]:
        return jax.tree.leaves(train_step(trainer, state, batch))

    if trainer.axis_name is not None:  # one replica with all rows
        step = jax.vmap(step, in_axes=(None, 0), axis_name=trainer.axis_name)
        batch = jax.tree.map(lambda x: x[None], batch)
    return traced_flops(jax.make_jaxpr(step)(state, batch))


@dataclasses.dataclass
class ShareOfPeak:
    """A callback that has the metrics tell `teraflops_per_second` of this process's devices, and
    `share_of_peak` where their peak is known."""

    stage: str = ""

    def __call__(self, done: StepDone) -> None:
        if done.stage == self.stage:
            return
        self.stage = done.stage
        devices = jax.local_devices()
        peak = peak_flops(devices[0].device_kind)
        done.journal.arithmetic = (
            step_flops(done.trainer, done.state(), done.taken),
            None if peak is None else peak * len(devices),
        )
