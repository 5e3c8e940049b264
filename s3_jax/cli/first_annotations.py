r"""Copy annotations, keeping only the first mask of every object.

  s3 first-annotations --annotations=LVOS/val/Annotations \
      --output=LVOS/val/Annotations_first
  s3 predict --dataset=lvos-val --annotations=val/Annotations_first ...

Masks without new objects are left out, and the others keep only the new objects. Palettes are kept.
"""

import concurrent.futures
import os
from pathlib import Path

from absl import flags
from tqdm import tqdm

from s3_jax.benchmarks.first_annotations import write_first_annotations
from s3_jax.benchmarks.score_folders import find_sequences
from s3_jax.cli.logs import quiet_logging
from s3_jax.errors import InputError, listed

ANNOTATIONS = flags.DEFINE_string(
    "annotations", None, "Directory with a folder of masks for each video. Required."
)
OUTPUT = flags.DEFINE_string("output", None, "Directory for the copy; must be new. Required.")
VOID = flags.DEFINE_integer("void", -1, "Id that marks pixels to ignore, often 255; -1: none.")


def main() -> None:
    quiet_logging()
    if not ANNOTATIONS.value or not OUTPUT.value:
        raise InputError("--annotations and --output are required (see --help)")
    folders = find_sequences(Path(ANNOTATIONS.value), "--annotations")
    output = Path(OUTPUT.value)
    if output.exists() and any(output.iterdir()):
        raise InputError(f"--output: {output} is not empty: masks of two copies would be mixed")
    void = None if VOID.value == -1 else VOID.value
    objects = masks = 0
    problems = []
    with (
        concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        tqdm(total=len(folders), unit=" videos") as bar,
    ):
        jobs = [pool.submit(write_first_annotations, folder, output / name, void)
                for name, folder in folders.items()]  # fmt: skip
        for job in jobs:
            try:
                appeared = job.result()
                objects, masks = objects + len(appeared), masks + len(set(appeared.values()))
            except InputError as error:
                problems.append(str(error))
            bar.update()
    print(f"{output}: {objects} objects in {masks} masks of {len(folders) - len(problems)} videos")
    if problems:
        raise InputError(listed(problems))
