r"""Merge several runs of s3 predict by adding up their probabilities.

  s3 predict ... --size=480 --save_scores --output=runs/480
  s3 predict ... --size=720 --flip --save_scores --output=runs/720f
  s3 merge-scores --runs=runs/480,runs/720f --output=runs/merged

All runs must use the same data set, videos and frames. --output gets the same files as with s3
predict: Annotations/<video>/<frame>.png, the submission file for the benchmark's server, and
run.json.
"""

import concurrent.futures
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from s3_jax.benchmarks.datasets import BENCHMARKS
from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.benchmarks.packaging import write_package
from s3_jax.cli.logs import quiet_logging
from s3_jax.config import from_dict
from s3_jax.errors import InputError
from s3_jax.segmentation.merging import (
    mask_encoding,
    merge_frame,
    refuse_different_frames,
    scored_frames,
)
from s3_jax.segmentation.run_record import RunRecord, read_run_records

RUNS = flags.DEFINE_list("runs", None, "Output directories of two or more runs. Required.")
OUTPUT = flags.DEFINE_string("output", None, "Directory for the merged results. Required.")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Directory of the data set, if it has moved since the runs."
)
WORKERS = flags.DEFINE_integer(
    "workers", None, "Frames merged at a time. Default: the number of cores.", lower_bound=1
)


def main() -> None:
    quiet_logging()
    runs = [Path(run) for run in RUNS.value or [] if run]
    if len(runs) < 2:
        raise InputError("--runs needs two directories or more, separated by commas")
    if not OUTPUT.value:
        raise InputError("--output is missing")
    records = [_record(run) for run in runs]
    datasets = sorted({record["settings"]["dataset"] for record in records})
    if len(datasets) > 1:
        raise InputError(f"--runs used different data sets: {', '.join(datasets)}")
    output = Path(OUTPUT.value)
    if output.resolve() in [run.resolve() for run in runs]:
        raise InputError(f"--output is {output}, one of the runs: choose another")
    frames = [scored_frames(run) for run in runs]
    refuse_different_frames(runs, frames)
    identity = {"dataset": datasets[0], "merged": [str(run.resolve()) for run in runs]}
    record = RunRecord(output, identity, (0, 1), kind="merging")
    record.note(**{key: records[0][key] for key in ("data_dir", "layout")})
    _merge(runs, frames[0], output)
    print(f"{output}: {sum(map(len, frames[0].values()))} frames of {len(runs)} runs merged")
    _pack(records[0], output)


def _record(run: Path) -> dict[str, Any]:
    records = read_run_records(run)
    if not records or "dataset" not in records[0]["settings"]:
        raise InputError(f"{run} has no run.json of s3 predict: give its --output directory")
    return records[0]


def _merge(runs: Sequence[Path], frames: Mapping[str, Sequence[str]], output: Path) -> None:
    workers = WORKERS.value or len(os.sched_getaffinity(0))
    with (
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
        tqdm(total=sum(map(len, frames.values())), unit=" frames", desc="merge") as bar,
    ):
        for name, names in frames.items():
            encoding = mask_encoding(runs[0] / "Annotations" / name)
            folder = output / "Annotations" / name
            folder.mkdir(parents=True, exist_ok=True)
            jobs = [
                pool.submit(
                    merge_frame,
                    [run / "scores" / name / f"{frame}.npz" for run in runs],
                    encoding,
                    folder / f"{frame}.png",
                )
                for frame in names
            ]
            for job in concurrent.futures.as_completed(jobs):
                job.result()
                bar.update()


def _pack(record: Mapping[str, Any], output: Path) -> None:
    benchmark = BENCHMARKS[record["settings"]["dataset"]]
    if benchmark.package is None:
        return
    data_dir = Path(DATA_DIR.value or record["data_dir"])
    videos = benchmark.list_videos(data_dir, from_dict(LayoutConfig, record["layout"]))
    print(f"to hand in: {write_package(benchmark.package, output, output / 'Annotations', videos)}")
