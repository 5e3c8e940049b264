r"""Segment the videos of a benchmark and pack the results for its server.

  s3 predict --dataset=davis2017-val --data_dir=DAVIS \
      --checkpoint=checkpoints/s3 --output=results/davis
  s3 score --results=results/davis --annotations=DAVIS --output=scores

Data sets, with the folders that --data_dir must have (as the benchmarks' archives extract):
  davis2016-val, davis2017-val, davis2017-test-dev
                      JPEGImages/480p, Annotations/480p, ImageSets (also in 2017/trainval,
                      trainval, test-dev). Without the split's list: all videos.
  youtubevos2018-val, youtubevos2019-val
                      valid/JPEGImages, valid/Annotations, valid/meta.json, and
                      all_frames/valid_all_frames/JPEGImages (or valid_all_frames/JPEGImages)
  mose-val            valid/JPEGImages, valid/Annotations
  lvos-val, lvos-test val/ or test/ with JPEGImages, Annotations
  burst-val, burst-test
                      frames/val, val/first_frame_annotations.json (or test)
  vost-val, vost-test JPEGImages, Annotations, ImageSets/val.txt
  generic             JPEGImages/<video>/ or .mp4, Annotations/<video>/ or .png

Sizes, memory settings, saved frames and used masks follow the benchmark's protocol. Flags on the
command line override it. --plus selects the settings for best results.

Files in --output:
  Annotations/<video>/<frame>.png   masks with the ids, palette and size of the given masks
  submission.zip, predictions.json  the file for the benchmark's server, once all videos are done
  scores/<video>/<frame>.npz        with --save_scores: probabilities, for s3 merge-scores
  run.json                          settings, versions, speed and memory
  progress/                         state of the run so far; you may delete it after the run

If a run is interrupted, give the same command again: it resumes, and finished videos stay as they
are. Videos are distributed over all local devices. Several hosts (or commands) can share one
--output with --shard=0/4, --shard=1/4, ...; under Slurm or on a TPU pod they find their shard
themselves. With --ray or --ray=HOST:PORT the videos run on a Ray cluster, with one actor per
device. If an actor is lost, its videos continue elsewhere. One command controls the whole run
(docs/long_runs.md).

Examples:
  # Several scales and a flip, merged.
  s3 predict ... --size=480 --save_scores --output=runs/480
  s3 predict ... --size=720 --flip --save_scores --output=runs/720f
  s3 merge-scores --runs=runs/480,runs/720f --output=runs/merged
  # Only two videos, at the size that others use for LVOS.
  s3 predict --dataset=lvos-val --sequences=two.txt --size=480 ...
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging

from s3_jax import cluster
from s3_jax.benchmarks.datasets import BENCHMARKS, Benchmark
from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.benchmarks.layouts.video import BenchmarkVideo
from s3_jax.benchmarks.packaging import write_package
from s3_jax.benchmarks.prediction import (
    Outcome,
    PredictionFolder,
    RunProgress,
    Workplace,
    group_videos,
    predict,
    share_out,
)
from s3_jax.cli import command, mask_flags, propagation_flags, ray_flags
from s3_jax.cli.interruption import interruption
from s3_jax.cli.logs import quiet_logging
from s3_jax.cli.progress import FrameBar, frame_bar
from s3_jax.cli.propagation_flags import (
    CHECKPOINT,
    DTYPE,
    define_propagation_flags,
    propagation_config,
)
from s3_jax.cli.ray_flags import RAY
from s3_jax.config import PropagationConfig, to_dict
from s3_jax.errors import InputError, listed
from s3_jax.segmentation.run_folder import named_fingerprint
from s3_jax.segmentation.run_record import RunRecord, describe_devices
from s3_jax.segmentation.video import SegmentConfig

_BY_DATASET = "the data set's"

DATASET = flags.DEFINE_enum("dataset", None, list(BENCHMARKS), "Benchmark. Required.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Directory of the data set; see above. Required.")
OUTPUT = flags.DEFINE_string("output", None, "Directory for the results. Required.")
OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Segment every video again, including finished ones."
)
PLUS = flags.DEFINE_bool(
    "plus",
    False,
    "Use the settings for best results instead of the standard protocol: DAVIS and MOSE at 720 "
    "with mem_every 3, YouTube-VOS at 600, all with max_mem_frames 10.",
)
SIZE = flags.DEFINE_integer(
    "size",
    None,
    "Shrink frames to this short side in pixels first, with antialiasing; -1 keeps their size. "
    f"Results have the size of the masks. Default: {_BY_DATASET}.",
)
ALL_MASKS = flags.DEFINE_bool(
    "all_masks",
    None,
    "Use every mask; with --noall_masks, only the first mask of each object. Default: "
    f"{_BY_DATASET} rule (DAVIS, MOSE, VOST: the first frame's mask; YouTube-VOS: all).",
)
VOID = flags.DEFINE_integer(
    "void",
    None,
    "Id in masks that marks pixels to ignore; -1: every id is an object. Default: 255 in masks of "
    "8 bits; none for davis2016-val and generic.",
)
SEQUENCES = flags.DEFINE_string(
    "sequences", None, "Text file with the names of the videos, one per line. Default: all."
)
IMAGES = flags.DEFINE_string(
    "images", None, "Directory with the videos' images, within --data_dir. Default: see above."
)
ANNOTATIONS = flags.DEFINE_string(
    "annotations",
    None,
    "Directory with the videos' masks (BURST: JSON file), within --data_dir. Default: see above.",
)
SAVE_SCORES = flags.DEFINE_bool(
    "save_scores", False, "Also write probabilities, scores/<video>/<frame>.npz (large)."
)
SHARD = flags.DEFINE_string(
    "shard",
    None,
    "i/n: segment the i-th of n shares of the videos (i from 0). Default: this host's share under "
    "Slurm, MPI or on a TPU pod, else all videos.",
)
BATCH = flags.DEFINE_integer(
    "batch",
    1,
    "Videos per device at a time, for devices that one video cannot keep busy. Only videos with "
    "the same frame size and masks on the first frame only (DAVIS, MOSE, VOST) are batched; others "
    "run one by one. An interrupted batch starts over. Memory grows with the number of videos.",
    lower_bound=1,
)
RAY_WORKERS = flags.DEFINE_integer(
    "ray_workers",
    None,
    "Number of actors with --ray. Default: one per GPU or TPU chip of the cluster, else one per "
    "machine. If there are only CPUs, the actors share them.",
    lower_bound=1,
)
_PROPAGATION_FLAGS = define_propagation_flags(
    dict.fromkeys(("mem_every", "max_mem_frames", "long_term"), _BY_DATASET)
)
flags.adopt_module_key_flags(propagation_flags)
flags.adopt_module_key_flags(mask_flags)
flags.adopt_module_key_flags(ray_flags)


def main() -> None:
    """Check everything that can be checked quickly, then load the model and segment."""
    quiet_logging()
    benchmark = BENCHMARKS[_required(DATASET)]
    settings = benchmark.plus if PLUS.value else benchmark.config
    if settings is None:
        raise InputError(f"--plus: there are no such settings for {DATASET.value}; leave it out")
    size = settings.short_side if SIZE.value is None else SIZE.value
    if size != -1 and size < 32:
        raise InputError(f"--size is {size}, but must be at least 32, or -1 to keep the size")
    layout = _layout_config()
    videos = _list_videos(benchmark, layout)
    checkpoint = _find_checkpoint(_required(CHECKPOINT))
    config = propagation_config(_PROPAGATION_FLAGS, checkpoint, settings.propagation())
    shard = _shard()
    identity = {
        "dataset": DATASET.value,
        "checkpoint": named_fingerprint(checkpoint),
        "size": size,
        "dtype": DTYPE.value,
        "all_masks": ALL_MASKS.value,
        "void": VOID.value,
        **mask_flags.said(),
        "save_scores": SAVE_SCORES.value,
        "batch": BATCH.value,
        **dataclasses.asdict(config),
    }
    output = Path(_required(OUTPUT))
    record = RunRecord(output, identity, shard, OVERWRITE.value)
    record.note(
        data_dir=str(Path(_required(DATA_DIR)).resolve()),
        layout=to_dict(layout),
        checkpoint=str(checkpoint),
    )
    folder = PredictionFolder(output, identity, OVERWRITE.value)
    _run(benchmark, videos, folder, record, config.at_most(size), size, checkpoint)


def _run(
    benchmark: Benchmark,
    videos: Sequence[BenchmarkVideo],
    folder: PredictionFolder,
    record: RunRecord,
    config: PropagationConfig,
    size: int,
    checkpoint: Path,
) -> None:
    """Segment this shard's videos, pack the results if they are complete, and report."""
    mine = share_out(videos, *record.shard)
    options = SegmentConfig(
        short_side=size,
        save_scores=SAVE_SCORES.value,
        size_of_masks=True,
    )
    groups = group_videos(mine, BATCH.value)
    with interruption() as interrupted, frame_bar(sum(v.num_frames for v in mine)) as bar:
        if RAY.value:
            device = functools.partial(_first_workplace, checkpoint, config, DTYPE.value)
            stop = lambda: bool(interrupted)  # noqa: E731
            devices, outcome = _predict_on_ray(
                RAY.value, groups, folder, options, device, bar, stop
            )
        else:
            progress = RunProgress(bar.found, bar.advanced, lambda: bool(interrupted))
            devices, workplaces = _workplaces(checkpoint, config)
            outcome = predict(groups, folder, options, workplaces, progress, _make_batch)
    records = {v.name: r for v in mine if (r := folder.record(v)) is not None}
    record.finish(devices, records, outcome.problems)
    if interrupted:
        for name, problem in sorted(outcome.problems.items()):
            logging.warning("%s: %s", name, problem)
        raise KeyboardInterrupt
    if outcome.problems:
        problems = [f"{name}: {problem}" for name, problem in sorted(outcome.problems.items())]
        raise InputError(
            f"{listed(problems)}\n  {len(outcome.finished)} of {len(mine)} videos are done; the "
            "same command retries the others"
        )
    print(f"{folder.path}: {len(mine)} videos, {record.summary()}")
    _pack(benchmark, videos, folder)


def _predict_on_ray(
    address: str,
    groups: Sequence[Sequence[BenchmarkVideo]],
    folder: PredictionFolder,
    options: SegmentConfig,
    device: Callable[[], tuple[list[dict[str, Any]], Workplace]],
    bar: FrameBar,
    stop: Callable[[], bool],
) -> tuple[list[dict[str, Any]], Outcome]:
    """Segment on a Ray cluster; return the descriptions of the actors' devices and the outcome."""
    with cluster.connected(address) as ray:
        from s3_jax.benchmarks.on_ray import ClusterJob, predict_on_cluster

        workers = cluster.worker_options(ray.cluster_resources(), RAY_WORKERS.value)
        if OVERWRITE.value:  # once, here: actors continue results that others in this run began
            for video in itertools.chain.from_iterable(groups):
                with contextlib.suppress(InputError):  # reported by the actor that segments it
                    folder.open_video(video)
        job = ClusterJob(folder.path, folder.identity, options, device, _make_batch)
        return predict_on_cluster(groups, job, workers, bar.reached, stop)


def _first_workplace(
    checkpoint: Path, config: PropagationConfig, dtype: str
) -> tuple[list[dict[str, Any]], Workplace]:
    """Return the description of an actor's device, and its workplace."""
    devices, workplaces = _local_workplaces(checkpoint, config, dtype)
    return describe_devices(devices[:1]), workplaces[0]


def _pack(benchmark: Benchmark, videos: Sequence[BenchmarkVideo], folder: PredictionFolder) -> None:
    """Write the submission once all videos, including those of other shards, are finished."""
    missing = [video.name for video in videos if folder.record(video) is None]
    if missing:
        print(f"{len(missing)} of {len(videos)} videos are left to other shards")
        return
    if benchmark.package:
        print(f"to hand in: {write_package(benchmark.package, folder.path, folder.masks, videos)}")
    if benchmark.score:
        annotations = ANNOTATIONS.value or DATA_DIR.value
        flags_of_score = f"--annotations={annotations} {benchmark.score} --output=DIR"
        print(command.as_typed(f"to score: s3 score --results={folder.path} {flags_of_score}"))


def _layout_config() -> LayoutConfig:
    if VOID.value is not None and (VOID.value < -1 or VOID.value == 0):
        raise InputError(f"--void is {VOID.value}, but must be a positive id, or -1 for none")
    return LayoutConfig(
        sequences=Path(SEQUENCES.value).resolve() if SEQUENCES.value else None,
        images=IMAGES.value,
        annotations=ANNOTATIONS.value,
        rule=None if ALL_MASKS.value is None else "all" if ALL_MASKS.value else "first_of_each",
        void="default" if VOID.value is None else None if VOID.value == -1 else VOID.value,
        full_resolution=PLUS.value,
        **mask_flags.said(),
    )


def _list_videos(benchmark: Benchmark, layout: LayoutConfig) -> Sequence[BenchmarkVideo]:
    data_dir = Path(_required(DATA_DIR))
    if not data_dir.is_dir():
        raise InputError(f"--data_dir: {data_dir} is not a directory")
    return benchmark.list_videos(data_dir, layout)


def _find_checkpoint(path_or_name: str) -> Path:
    # Imported late, here and below: loading JAX takes seconds, and flag errors do not need it.
    from s3_jax.checkpoints.model import find_model

    return find_model(path_or_name)


def _shard() -> tuple[int, int]:
    """Return the index of this share and the number of shares."""
    if RAY.value and SHARD.value is not None:
        raise InputError("--ray spreads the videos itself: leave --shard out")
    if RAY.value:
        return 0, 1
    if SHARD.value is None:
        return _own_shard()
    try:
        index, count = (int(n) for n in SHARD.value.split("/"))
    except ValueError:
        raise InputError(f"--shard is {SHARD.value!r}; write it like 0/4") from None
    if not 0 <= index < count:
        raise InputError(f"--shard is {SHARD.value}, but shares of {count} are 0 to {count - 1}")
    return index, count


def _own_shard() -> tuple[int, int]:
    """Return this process's index and the number of processes that were started together."""
    import jax

    if jax.process_count() > 1:
        return jax.process_index(), jax.process_count()
    for rank, size in _LAUNCHERS:
        if rank in os.environ and size in os.environ:
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


_LAUNCHERS = (("SLURM_PROCID", "SLURM_NTASKS"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"))


def _make_batch(sessions: Sequence[Any]) -> Any:
    from s3_jax.propagation.batch import SessionBatch

    return SessionBatch(sessions)


def _workplaces(checkpoint: Path, config: PropagationConfig) -> tuple[list[Any], list[Workplace]]:
    return _local_workplaces(checkpoint, config, DTYPE.value)


def _local_workplaces(
    checkpoint: Path, config: PropagationConfig, dtype: str
) -> tuple[list[Any], list[Workplace]]:
    """Return the local devices, and a workplace on each that loads the model when first needed."""
    import jax
    import jax.numpy as jnp

    from s3_jax.checkpoints.model import load_model
    from s3_jax.cli.compilation import prepare_compilation
    from s3_jax.propagation.session import Session

    prepare_compilation()
    lock = threading.Lock()
    loaded = functools.cache(lambda: load_model(checkpoint))
    on_device = functools.cache(lambda device: jax.device_put(loaded()[1], device))

    def make_session(device: Any) -> Session:
        with lock:
            model_config, variables = loaded()[0], on_device(device)
        return Session(model_config, variables, config, dtype=jnp.dtype(dtype))

    @contextlib.contextmanager
    def workplace(device: Any) -> Iterator[Callable[[], Session]]:
        with jax.default_device(device):
            yield functools.partial(make_session, device)

    devices = jax.local_devices()
    return devices, [functools.partial(workplace, device) for device in devices]


def _required(flag: flags.FlagHolder[str | None]) -> str:
    if not flag.value:
        raise InputError(f"--{flag.name} is missing; --help shows how the command is used")
    return flag.value
