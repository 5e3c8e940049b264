"""A process that trains on four virtual devices in every form of `parallel`.

  python -m tests.training.meshes OUTPUT

Writes OUTPUT.npz with the losses of 20 steps, of the toy network in every form and of the smallest
S3 in two; and, for layers whose state is worth sharding, the bytes of the state on the first device
before and after a step.
"""

import dataclasses
import itertools
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from s3_jax.models.s3 import S3
from s3_jax.models.variables import initial_variables
from s3_jax.training import clip_loss
from s3_jax.training.clip_loss import make_trainer
from s3_jax.training.parallel import devices_as, replica_axes
from s3_jax.training.parts import Trainer
from s3_jax.training.step import init_state
from s3_jax.training.step_config import StepConfig
from tests.training import tiny_run, toy

ROWS = 8
STEPS = 20
SIZES = (64, 128, 256, 32)


def losses_of(
    model: S3, settings: StepConfig, variables: Any, form: Any, frames: int, size: int
) -> np.ndarray:
    """Total losses of 20 steps, BatchNorm included, on clips of this many frames and this width."""
    trainer = make_trainer(model.clone(axis_name=replica_axes(form)), settings)
    devices = devices_as(form)
    state = devices.put_state(init_state(trainer, variables, 0))
    update = devices.update(trainer)
    losses = []
    for step in range(STEPS):
        batch = toy.batch(ROWS, step, frames, size)
        state, metrics = update(state, devices.put_batch(batch))
        losses.append(float(metrics["total"]))
    return np.array(losses)


def layers_loss(variables: Any, batch: Any, rows: Any, key: Any) -> Any:
    x = batch["x"]
    for name in sorted(variables["params"]):
        x = jnp.tanh(x @ variables["params"][name])
    return {"total": jnp.mean((x - batch["y"]) ** 2)}, {}


def layers(form: Any) -> dict[str, np.ndarray]:
    """Losses and bytes of a state with Adam's moments."""
    rng = np.random.default_rng(0)
    shapes = itertools.pairwise(SIZES)
    params = {f"w{i}": rng.normal(0, 0.1, s).astype(np.float32) for i, s in enumerate(shapes)}
    trainer = Trainer(layers_loss, optax.adam(1e-2), axis_name=replica_axes(form))
    devices = devices_as(form)
    state = devices.put_state(init_state(trainer, {"params": params}, 0))
    held, losses = [bytes_on_first_device(state)], []
    update = devices.update(trainer)
    for _ in range(STEPS):
        x = rng.normal(size=(ROWS, SIZES[0])).astype(np.float32)
        batch = {"x": x, "y": np.sin(x[:, : SIZES[-1]])}
        state, metrics = update(state, devices.put_batch(batch))
        losses.append(float(metrics["total"]))
    whole = devices.get(state)
    return {
        "losses": np.array(losses),
        "held": np.array([*held, bytes_on_first_device(state)]),
        "w1": np.asarray(whole.params["w1"]),
    }


def bytes_on_first_device(tree: Any) -> int:
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def main(output: str) -> None:
    assert jax.device_count() == 4
    found = {}
    small, settings = S3(tiny_run.MODEL), tiny_run.VIDEO.step
    settings = dataclasses.replace(settings, clip=dataclasses.replace(settings.clip, num_objects=2))
    variables = initial_variables(tiny_run.MODEL, 0)
    for form in ("pmap", "mesh"):
        found[f"{form}/s3"] = losses_of(small, settings, variables, form, frames=2, size=32)
    clip_loss.run_clip = toy.run_clip
    for form in ("pmap", "mesh", "fsdp"):
        inputs = S3(toy.CONFIG), toy.SETTINGS, toy.variables()
        found[f"{form}/toy"] = losses_of(*inputs, form, frames=3, size=8)
        found |= {f"{form}/{name}": x for name, x in layers(form).items()}
    with Path(output).open("wb") as file:
        np.savez(file, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
