r"""Train a prompt head, which turns clicks and boxes into masks, on a network's frozen encoder.

  s3 train-prompts --data_root=data --workdir=runs/prompts
  s3 segment --checkpoint=runs/prompts --video=cats.mp4 --points=210,140:1 --output=results/cats

--data_root must contain davis2016_train, stills (ecssd, coco_instances, voc2007_instances) and
bsds500. s3_jax/training/prompts/folders.py lists the pictures held out for validation, and
s3_jax/training/prompts/recipe.py has all settings of the recipe. All pictures are kept in memory
(1.2 GB). If a run is interrupted, give the same command again to resume it.

Hardware: the bundled head was trained for 455 steps on one H100, which took half a minute after two
minutes of compilation. On CPUs try --size=160 --batch_size=8. Expected score: docs/prompts.md.
"""

import dataclasses
from pathlib import Path

from absl import flags

from s3_jax.cli import command
from s3_jax.errors import InputError

DATA_ROOT = flags.DEFINE_string("data_root", None, "Directory of the data. Required.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory for the run. Required.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "s3_lite", "Network whose encoder to use.")
STEPS = flags.DEFINE_integer("steps", None, "Number of training steps.", lower_bound=1)
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Views per step.", lower_bound=1)
SIZE = flags.DEFINE_integer("size", None, "Side of the views, a multiple of 32.", lower_bound=64)


def main() -> int:
    data_root, workdir = (_required(flag) for flag in (DATA_ROOT, WORKDIR))
    if SIZE.value and SIZE.value % 32:
        raise InputError(f"--size is {SIZE.value}, but must be a multiple of 32")
    from s3_jax.cli.compilation import enable_compilation_cache
    from s3_jax.training.prompts.recipe import PromptRunConfig, train_prompt_head

    enable_compilation_cache()
    usual = PromptRunConfig()
    config = dataclasses.replace(
        usual,
        steps=STEPS.value or usual.steps,
        batch_size=BATCH_SIZE.value or usual.batch_size,
        views=dataclasses.replace(usual.views, size=SIZE.value or usual.views.size),
    )
    outcome = train_prompt_head(config, data_root, CHECKPOINT.value, workdir)
    if outcome.stopped:
        done = outcome.step
        return command.fail(f"interrupted after {done} steps; the same command continues", 130)
    return 0


def _required(flag: flags.FlagHolder) -> Path:
    if not flag.value:
        raise InputError(f"--{flag.name} is missing; --help shows how the command is used")
    return Path(flag.value)
