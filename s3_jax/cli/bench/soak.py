r"""Stream a long synthetic video through a tiny network, and watch memory, threads and open files.

  s3 bench soak --frames=20000

Objects keep entering and leaving. The command fails if memory grows by more than two percent
after the first tenth, or if the number of threads or open files changes.
"""

import gc
import time
from pathlib import Path

import jax
import numpy as np
import psutil
from absl import flags, logging

from s3_jax.config import ModelConfig, PropagationConfig, ResNetConfig
from s3_jax.errors import InputError
from s3_jax.models.s3 import S3
from s3_jax.propagation.session import Session

FRAMES = flags.DEFINE_integer(
    "frames",
    20_000,
    "Frames to stream, at least ten thousand. Memory use settles within the first thousand.",
    lower_bound=10_000,
)
GROWTH = 0.02
SIZE, OBJECTS, LIFE = 32, 3, 40
TINY = ModelConfig(
    encoder="resnet",
    encoder_settings=ResNetConfig(18), num_blocks=1, num_queries=4, width=32, key_dim=8,
    num_heads=4, ff_dim=32, decoder_dims=(32, 16, 16),
)  # fmt: skip


def main() -> int:
    logging.set_verbosity(logging.WARNING)
    image, masks = np.zeros((1, 64, 64, 3), np.float32), np.zeros((1, 1, 64, 64), np.float32)
    variables = jax.jit(S3(TINY).init)(jax.random.key(0), image, masks)
    session = Session(TINY, variables, PropagationConfig(mem_every=3, max_mem_frames=3))
    rng, readings, begin = np.random.default_rng(0), [], time.monotonic()
    for t in range(FRAMES.value):
        session.step(_next_frame(session, rng, t)).index_mask()
        if t % (FRAMES.value // 20) == FRAMES.value // 20 - 1:
            gc.collect()
            readings.append(_reading())
            rate = (t + 1) / (time.monotonic() - begin)
            memory, threads, files = readings[-1]
            print(f"frame {t + 1}: {memory / 2**20:.1f} MiB, {threads} threads, {files} files, "
                  f"{rate:.0f} frames/s", flush=True)  # fmt: skip
    settled = readings[1:]
    growth = settled[-1][0] / settled[0][0] - 1
    print(f"memory {100 * growth:+.2f} % after the first tenth")
    if growth > GROWTH or len({reading[1:] for reading in settled}) > 1:
        raise InputError("memory, threads or files grew: see the readings above")
    return 0


def _next_frame(session: Session, rng: np.random.Generator, t: int) -> np.ndarray:
    """Draw a frame, and let objects enter and leave the session."""
    image = rng.integers(0, 60, (SIZE, SIZE, 3), np.uint8)
    if t % LIFE == 0:
        if len(session.object_ids) == OBJECTS:
            session.delete(session.object_ids[:1])
        mask = np.zeros((SIZE, SIZE), bool)
        top, left = rng.integers(0, SIZE // 2, 2)
        mask[top : top + 10, left : left + 10] = True
        image[mask] = 220
        session.add({1 + t // LIFE: mask})
    return image


def _reading() -> tuple[int, int, int]:
    process = psutil.Process()
    return (
        process.memory_info().rss,
        process.num_threads(),
        len(list(Path("/proc/self/fd").iterdir())),
    )
