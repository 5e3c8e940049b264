"""Upload a network to the Hugging Face Hub, so that others can use it by its address.

  hf auth login
  s3 push --checkpoint=runs/mine/best --to=hf://me/cats
  s3 segment --checkpoint=hf://me/cats --video=cats.mp4 --masks=first.png --output=results/cats

The repository is created if it does not exist, with a card that explains how to use the network.
This command needs the package huggingface_hub: pip install 's3_jax[hub]'.
"""

from absl import flags

from s3_jax.errors import InputError

CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Checkpoint directory, or a training run's directory. Required."
)
TO = flags.DEFINE_string(
    "to", None, "Destination: hf://org/name, or hf://org/name@branch. Required."
)
PRIVATE = flags.DEFINE_bool("private", False, "Make a new repository private.")


def main() -> None:
    checkpoint, to = _required(CHECKPOINT), _required(TO)
    # Imported late: loading JAX takes seconds, and flag errors do not need it.
    from s3_jax.checkpoints.hub import parse, push_model
    from s3_jax.checkpoints.model import find_model

    parse(to)
    page = push_model(find_model(checkpoint), to, bool(PRIVATE.value))
    print(f"{page}: use it with --checkpoint={to}")


def _required(flag: flags.FlagHolder[str | None]) -> str:
    if not flag.value:
        raise InputError(f"--{flag.name} is missing; --help shows how the command is used")
    return flag.value
