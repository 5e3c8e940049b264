r"""Check a data set and store it as ArrayRecord for training.

  s3 prepare --input=DIR --output=DIR --name=my_videos

The input is one of:
  --layout=videos   a folder with JPEGImages[/480p]/<video>/*.jpg and
                    Annotations[/480p]/<video>/*.png, directly or in train/
  --layout=images   photographs with a mask of one object each: x.jpg with x.png, in the same
                    directory or in another one

Every image and mask is decoded once. Damaged frames, masks whose size differs from the image's, and
videos without any object are reported and left out.

Files in --output:
  NAME/report.json       counts, and a line for everything that was left out
  NAME/empty_masks.json  masks without objects, so that training does not start clips with them;
                         pass it to VideoFolderConfig(empty_masks=...) to read the folder directly
  NAME/1.0.0/            the data set in the format of TFDS, for Records(path=...)

If a run is interrupted, give the same command again to resume it. The data set is written
completely or not at all. With --ray or --ray=HOST:PORT the machines of a Ray cluster check the
files.

Examples:
  # DAVIS 2017, training split only
  s3 prepare --input=DAVIS --subset=ImageSets/2017/train.txt ...
  # black-and-white masks of one object
  s3 prepare --binary ...
  # only the report and the list of empty masks
  s3 prepare --check_only ...
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from tqdm import tqdm

from s3_jax import cluster
from s3_jax.cli import command, ray_flags
from s3_jax.cli.ray_flags import RAY
from s3_jax.data import prepare
from s3_jax.errors import InputError, reason
from s3_jax.media.writers import write_json

INPUT = flags.DEFINE_string("input", None, "Directory of the data set. Required.")
OUTPUT = flags.DEFINE_string("output", None, "Directory for prepared data sets. Required.")
NAME = flags.DEFINE_string("name", None, "Name of the prepared data set. Required.")
LAYOUT = flags.DEFINE_enum("layout", "videos", ["videos", "images"], "Layout of the input.")
IMAGES = flags.DEFINE_string("images", "", "Directory of the videos' images, within --input.")
ANNOTATIONS = flags.DEFINE_string("annotations", "", "Directory of their masks, within --input.")
SUBSET = flags.DEFINE_string("subset", "", "Text file with the names of videos, within --input.")
BINARY = flags.DEFINE_bool(
    "binary", False, "Treat everything that is not background as one object."
)
CHECK_ONLY = flags.DEFINE_bool(
    "check_only", False, "Write only the report and the list of empty masks."
)
WORKERS = flags.DEFINE_integer(
    "workers", os.cpu_count() or 1, "Threads that check files.", lower_bound=1
)
flags.adopt_module_key_flags(ray_flags)
SHOWN = 10  # problems printed; the report has all


def main() -> int:
    try:
        if not (INPUT.value and OUTPUT.value and NAME.value):
            raise InputError("give --input, --output and --name")
        _prepare(Path(INPUT.value), Path(OUTPUT.value), NAME.value)
    except OSError as error:
        return command.fail(
            f"cannot write {error.filename or OUTPUT.value}: {reason(error)}; fix this and run "
            "the command again: finished checks are kept"
        )
    return 0


def _prepare(source: Path, output: Path, name: str) -> None:
    _require_name(name, output)
    if LAYOUT.value == "images":
        items = prepare.list_photographs(source)
    else:
        folders = (IMAGES.value, ANNOTATIONS.value, SUBSET.value)
        items = prepare.list_videos(source, *folders, binary=BINARY.value)
    (output / name).mkdir(parents=True, exist_ok=True)
    log = output / name / ".checks.jsonl"
    with tqdm(total=len(items), unit="item", disable=not sys.stderr.isatty()) as progress:
        checks = _check(items, log, progress.update)
    report = prepare.report(items, checks)
    write_json(output / name / "report.json", report)
    write_json(output / name / "empty_masks.json", prepare.empty_masks(items, checks))
    _show(report, output / name)
    if not CHECK_ONLY.value:
        print(f"data set: {prepare.write_records(name, output, items, checks)}")
    log.unlink()


def _check(
    items: Sequence[prepare.Item], log: Path, done: Callable[[], object]
) -> list[prepare.Check]:
    if not RAY.value:
        return prepare.check_all(items, log, WORKERS.value, done)
    with cluster.connected(RAY.value):
        return prepare.check_all(items, log, WORKERS.value, done, cluster.spread)


def _require_name(name: str, output: Path) -> None:
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise InputError(f"--name={name}: a name has small letters, digits and _ only")
    prepared = output / name / prepare.VERSION
    if prepared.exists() and not CHECK_ONLY.value:
        raise InputError(f"{prepared} is there already: remove it, or choose another --name")


def _show(report: dict[str, Any], directory: Path) -> None:
    print(
        f"{report['videos_usable']} of {report['videos']} videos and {report['frames_usable']} of "
        f"{report['frames']} frames with a mask can be used; {report['frames_without_object']} "
        f"show no object, {report['frames_without_annotation']} more frames have no mask"
    )
    problems = report["problems"]
    for problem in problems[:SHOWN]:
        print(f"left out: {problem}", file=sys.stderr)
    if len(problems) > SHOWN:
        print(f"and {len(problems) - SHOWN} more; see the report", file=sys.stderr)
    print(f"report: {directory / 'report.json'}")
