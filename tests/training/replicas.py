"""A process that trains the toy network on equal global batches, on any devices and processes.

  python -m tests.training.replicas OUTPUT [COORDINATOR PROCESSES PROCESS]

Devices are those that XLA_FLAGS asks for. Writes OUTPUT.npz: losses of every step, parameters and
BatchNorm statistics at the end as every local device holds them.
"""

import sys
from pathlib import Path

import jax
import numpy as np

from s3_jax.conversion.weights import flatten
from s3_jax.models.s3 import S3
from s3_jax.training import clip_loss
from s3_jax.training.clip import ClipBatch
from s3_jax.training.clip_loss import make_trainer
from s3_jax.training.parallel import REPLICAS, join_processes, parallel_step, replicate, shard_batch
from s3_jax.training.step import init_state
from tests.training import toy

ROWS = 8  # of the global batch, which every layout divides
STEPS = 3


def main(output: str, *layout: str) -> None:
    if layout:
        coordinator, processes, process = layout
        join_processes(coordinator, int(processes), int(process))
    clip_loss.run_clip = toy.run_clip
    trainer = make_trainer(S3(toy.CONFIG, axis_name=REPLICAS), toy.SETTINGS)
    state, advance = replicate(init_state(trainer, toy.variables(), 0)), parallel_step(trainer)
    found: dict[str, np.ndarray] = {"devices": np.array(jax.device_count())}
    for step in range(STEPS):
        before = state
        state, metrics = advance(state, shard_batch(_own_rows(toy.batch(ROWS, step))))
        found["consumed"] = np.array([x.is_deleted() for x in jax.tree.leaves(before)])
        found |= {f"metrics/{name}/{step}": np.asarray(x) for name, x in metrics.items()}
    for kind, tree in (("params", state.params), ("batch_stats", state.batch_stats)):
        for path, x in flatten(tree).items():
            copies = [np.asarray(shard.data) for shard in x.addressable_shards]
            found[f"{kind}/{path}"] = np.stack(copies)
    with Path(output).open("wb") as file:
        np.savez(file, **found)


def _own_rows(batch: ClipBatch) -> ClipBatch:
    """This process's part."""
    rows = ROWS // jax.process_count()
    first = rows * jax.process_index()
    return jax.tree.map(lambda x: x[first : first + rows], batch)


if __name__ == "__main__":
    main(*sys.argv[1:])
