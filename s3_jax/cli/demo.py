r"""Segment a short video in one command, and print the speed, quality and location of the result.

  s3 demo                                       the bundled clip
  s3 demo --video=cats.mp4 --mask=first.png     your own video
  s3 demo --checkpoint=DIR                      another network

The command downloads nothing. The clip is a synthetic scene of three koi that cross, with
ground-truth masks. For every fish, the command prints how well the result agrees with the ground
truth, and whether its mask was still on the right fish after the crossing.
"""

import itertools
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from absl import flags

from s3_jax.cli import command
from s3_jax.cli.logs import quiet_logging
from s3_jax.demo import clip
from s3_jax.errors import InputError
from s3_jax.media.mask_files import read_mask
from s3_jax.media.run_json import NAME

VIDEO = flags.DEFINE_string("video", None, "Video file or frame directory; needs --mask.")
MASK = flags.DEFINE_string("mask", None, "Mask of the video's first frame.")
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "s3_lite", "Checkpoint directory, or name of a bundled checkpoint."
)
OUTPUT = flags.DEFINE_string("output", "demo_output", "Directory for the results.")


def main() -> None:
    quiet_logging()
    if bool(VIDEO.value) != bool(MASK.value):
        raise InputError("--video and --mask belong together: give both or neither")
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    result = _free_directory(output)
    _run(
        command.as_typed("s3 segment"),
        f"--video={VIDEO.value or clip.VIDEO}",
        f"--masks={MASK.value or clip.FIRST_MASK}",
        f"--checkpoint={CHECKPOINT.value}",
        f"--output={result}",
        "--overwrite",
    )
    if not VIDEO.value:
        print(_report(result / "masks"))
    print(f"Look at {result / 'overlay.mp4'}; the masks are in {result / 'masks'}.")


def _free_directory(output: Path) -> Path:
    """Return `result`, or `result_2`, ... if earlier directories hold results, which are kept."""
    names = itertools.chain(["result"], (f"result_{n}" for n in itertools.count(2)))
    free = next(output / name for name in names if not (output / name / NAME).exists())
    if free.name != "result":
        print(f"Earlier results in {output} are kept; this one goes to {free}.")
    return free


def _report(masks: Path) -> str:
    """Return a report on how well the masks in a directory agree with the clip's ground truth."""
    found = np.stack([read_mask(path).ids for path in sorted(masks.glob("*.png"))])
    return clip.report(clip.compare(found.astype(np.uint8), clip.true_masks()))


def _run(name: str, *arguments: str) -> None:
    """Print and run a command as a user would, and exit with its code if it fails."""
    is_tool = name.startswith("tools.")
    shown = ["python", "-m", name] if is_tool else name.split()
    module = [name] if is_tool else ["s3_jax", *name.split()[1:]]
    print("$", shlex.join([*shown, *arguments]), flush=True)
    code = subprocess.run([sys.executable, "-m", *module, *arguments], check=False).returncode
    if code:
        raise SystemExit(code)
