r"""The main job in one command: segments a short video and says where to look.

  python -m tools.demo                                   a generated scene
  python -m tools.demo --video=cats.mp4 --mask=first.png --checkpoint=DIR
                                                         a video of yours

Without --video a scene of moving, overlapping bodies is generated, whose true masks are known.
Without --checkpoint the network is s3_resnet18 with untrained, random weights: the whole path is
run, but what comes out is no segmentation.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from absl import flags

from s3_jax.errors import InputError
from tools import cli

VIDEO = flags.DEFINE_string("video", None, "Video file or frame directory; needs --mask.")
MASK = flags.DEFINE_string("mask", None, "Mask of the video's first frame.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Checkpoint directory.")
OUTPUT = flags.DEFINE_string("output", "demo_output", "Directory for the results.")

FRAMES, HEIGHT, WIDTH, OBJECTS, SEED = 24, 240, 432, 2, 5
UNTRAINED_MODEL = "s3_resnet18"


def main() -> None:
    if bool(VIDEO.value) != bool(MASK.value):
        raise InputError("--video and --mask belong together: give both or neither")
    output = Path(OUTPUT.value)
    output.mkdir(parents=True, exist_ok=True)
    video, mask = VIDEO.value, MASK.value
    if not video:
        video, mask = _make_scene(output / "scene")
    checkpoint = CHECKPOINT.value or _make_untrained_checkpoint(output / "untrained")
    result = output / "result"
    _run(
        "tools.segment",
        f"--video={video}",
        f"--masks={mask}",
        f"--checkpoint={checkpoint}",
        f"--output={result}",
        "--overwrite",
    )
    print(f"Look at {result / 'overlay.mp4'}; the masks are in {result / 'masks'}.")
    if not CHECKPOINT.value:
        print("The weights are UNTRAINED: the masks show that everything runs, nothing more.")


def _make_scene(path: Path) -> tuple[str, str]:
    """Generates the scene (once) and returns its frames and first mask."""
    masks = path / "masks"
    if not (masks / f"{FRAMES - 1:05d}.png").exists():
        _run(
            "tools.make_synthetic_video",
            f"--output={path}",
            f"--frames={FRAMES}",
            f"--height={HEIGHT}",
            f"--width={WIDTH}",
            f"--objects={OBJECTS}",
            f"--seed={SEED}",
        )
    return str(path / "frames"), str(masks / "00000.png")


def _make_untrained_checkpoint(path: Path) -> str:
    """Random initial weights as a checkpoint directory (made once)."""
    if path.exists():
        return str(path)
    from s3_jax.checkpoint import save_model
    from s3_jax.config import MODELS
    from s3_jax.conversion.initialise import initial_variables

    config = MODELS[UNTRAINED_MODEL]
    print(f"No --checkpoint given: making random, untrained weights of {UNTRAINED_MODEL}.")
    metadata = {"weights": "untrained, random"}
    save_model(path, config, initial_variables(config), metadata=metadata)
    return str(path)


def _run(module: str, *arguments: str) -> None:
    """Runs a tool as a user would, showing the command; ends with its exit code where it fails."""
    print("$", shlex.join(["python", "-m", module, *arguments]), flush=True)
    code = subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    cli.run(main)
