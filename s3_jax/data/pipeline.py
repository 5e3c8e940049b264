"""Batches of training clips, prefetched by grain.

A training run has an endless list of clips; clip i is a pure function of the configuration and i.
Batch s of size n consists of clips s * n to (s + 1) * n - 1. Each batch is split into m equal
parts, and host h of m takes part h, so the hosts' rows, concatenated in order, are the batch. A
training step numbers its rows the same way (`training.draws`). The position in the data is
therefore the step, regardless of the number of hosts, worker processes and threads.
"""

import dataclasses
import functools
from collections.abc import Generator, Iterator
from typing import Any

import grain
import numpy as np
from absl import flags, logging

from s3_jax.data.config import DataConfig
from s3_jax.data.mixture import Mixture
from s3_jax.data.worker_processes import (
    light_processes,
    require_shared_memory,
    set_up_worker,
)
from s3_jax.errors import InputError
from s3_jax.media.background import prefetch
from s3_jax.media.image_files import shortened

Batch = dict[str, np.ndarray]
Row = dict[str, Any]
BATCHES_AHEAD = 2
IN_TRANSIT = 3  # clips per worker that are neither queued nor in a batch
LEAST_CLIPS = 100  # with fewer clips, the failure rate is not meaningful


def make_pipeline(
    config: DataConfig,
    *,
    batch_size: int,
    host_index: int = 0,
    host_count: int = 1,
    start_step: int = 0,
) -> "Batches":
    """Return the endless batches of one host, starting at a step.

    Args:
      batch_size: clips per host.

    Raises:
      InputError: a data set is missing, empty or incomplete.
      ValueError: an argument is out of range.
    """
    if batch_size < 1 or start_step < 0 or not 0 <= host_index < host_count:
        raise ValueError(
            f"batch_size {batch_size}, start_step {start_step}, host {host_index} of {host_count}: "
            "sizes must be positive and the host one of them"
        )
    clips = clip_rows(config, batch_size * host_count)
    own = _OwnRows(clips, batch_size, host_index, host_count, start_step)
    rows = _read_ahead(grain.MapDataset.source(own), config)
    return Batches(rows, config, batch_size, start_step)


def clip_rows(config: DataConfig, global_batch_size: int) -> grain.MapDataset:
    """Return the endless list of clips, addressed by number.

    Each row is a dictionary of `frames`, `masks`, `num_objects` and `failures`. Requesting a row
    again gives the same values.

    Raises:
      InputError: a data set is missing, empty or incomplete.
    """
    mixture = Mixture(config)
    make = functools.partial(_row, mixture, global_batch_size, config.num_steps)
    order = grain.MapDataset.range(len(mixture)).shuffle(seed=config.seed)
    return order.repeat().map_with_index(make)


class Batches(Iterator[Batch]):
    """Batches of one host, in order; close them after use, or use them as a context manager.

    Each batch is a dictionary of arrays of constant shape and dtype:
      frames: uint8 [b, t, h, w, 3], RGB.
      masks: uint8 [b, t, h, w], ids 1..num_objects, all of them in frame 0; 0 for background.
      num_objects: int32 [b], from 1 to `config.max_objects`.
      step: int32 [], the step of the batch.

    clips: number of clips made so far.
    failing: number of clips for which a damaged item had to be replaced.
    """

    def __init__(self, rows: grain.IterDataset, config: DataConfig, batch_size: int, step: int):
        self.clips = 0
        self.failing = 0
        self._most_failing = config.max_failing
        self._batch_size = batch_size
        self._reported: dict[str, None] = {}  # an ordered set
        with light_processes():
            self._rows: Iterator[Row] = iter(rows)
            first = self._take(1) if config.num_workers else []
        made = self._make(first, step)
        inline = config.num_workers == 0 and config.num_threads == 0
        self._batches = made if inline else prefetch(made, BATCHES_AHEAD)

    def __next__(self) -> Batch:
        """Return the next batch.

        Raises:
          InputError: too many files are damaged, or a data set shows no objects.
        """
        return next(self._batches)

    def close(self) -> None:
        """Stop prefetching and end the worker processes."""
        self._batches.close()
        if isinstance(self._rows, grain.DatasetIterator):
            self._rows.close()
        self._rows = iter(())  # grain's iterators must be freed before the interpreter exits

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.close()

    def _make(self, rows: list[Row], step: int) -> Generator[Batch, None, None]:
        while True:
            rows += self._take(self._batch_size - len(rows))
            yield {
                "frames": np.stack([row["frames"] for row in rows]),
                "masks": np.stack([row["masks"] for row in rows]),
                "num_objects": np.array([row["num_objects"] for row in rows], np.int32),
                "step": np.asarray(step, np.int32),
            }
            rows, step = [], step + 1

    def _take(self, count: int) -> list[Row]:
        rows = [next(self._rows) for _ in range(count)]
        for row in rows:
            self._count(row["failures"])
        return rows

    def _count(self, failures: tuple[str, ...]) -> None:
        """Log each failure once, and stop if there are too many.

        Raises:
          InputError: more than `max_failing` of the clips hit damaged files.
        """
        self.clips += 1
        self.failing += bool(failures)
        for failure in failures:
            if failure not in self._reported:
                self._reported[failure] = None
                logging.warning("%s; another is used in its place", failure)
        if self.clips >= LEAST_CLIPS and self.failing > self._most_failing * self.clips:
            examples = shortened(list(self._reported), 2)
            raise InputError(
                f"{self.failing} of {self.clips} clips met files that cannot be read, more than "
                f"max_failing ({self._most_failing:.0%}); for example: {examples}"
            )


@dataclasses.dataclass(frozen=True)
class _OwnRows:
    """The clips of one host by number, counted from the first clip of step `start_step`."""

    clips: grain.MapDataset
    batch_size: int
    host_index: int
    host_count: int
    start_step: int

    def __len__(self) -> int:
        return len(self.clips) // self.host_count

    def __getitem__(self, number: int) -> Row:
        steps, row = divmod(number, self.batch_size)
        part = (self.start_step + steps) * self.host_count + self.host_index
        return self.clips[part * self.batch_size + row]


def _row(mixture: Mixture, batch_size: int, num_steps: int, number: int, entry: int) -> Row:
    progress = min(1.0, number // batch_size / num_steps)
    sample = mixture.sample(entry, number // len(mixture), number, progress)
    return {
        "frames": sample.frames,
        "masks": sample.masks,
        "num_objects": sample.num_objects,
        "failures": sample.failures,
    }


def _read_ahead(rows: grain.MapDataset, config: DataConfig) -> grain.IterDataset:
    if config.num_workers:
        clip = config.num_frames * config.crop**2 * 4
        require_shared_memory(config.num_workers * (config.clips_ahead + IN_TRANSIT) * clip)
    if not flags.FLAGS.is_parsed():  # grain reads its flags before it starts processes
        flags.FLAGS.mark_as_parsed()
    ahead = config.clips_ahead if config.num_threads else 0
    threads = min(config.num_threads, ahead)
    stream = rows.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    )
    processes = grain.MultiprocessingOptions(
        num_workers=config.num_workers, per_worker_buffer_size=max(1, config.clips_ahead)
    )
    return stream.mp_prefetch(processes, worker_init_fn=set_up_worker)
