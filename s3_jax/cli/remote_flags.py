"""Flags that name files in an object store: inputs are fetched, outputs are copied to the store.

Commands see only paths on this machine. Flags in none of the lists below accept only such paths.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags

from s3_jax.errors import InputError
from s3_jax.remote import fetched, is_remote, mirrored, refuse_remote, require_scheme

READ = frozenset(
    ("annotations", "data_dir", "data_root", "efficientnet", "frame", "image_encoder_resnet",
     "images", "input", "mask", "mask_encoder_resnet", "masks", "meta", "results", "run", "runs",
     "scores", "sequences", "unseen", "video", "vit", "widen")
)  # fmt: skip
WRITTEN = frozenset(("csv", "output", "workdir"))
# The program itself fetches the files that it needs from these.
KNOWN_INSIDE = frozenset(("checkpoint", "config", "to"))
# These commands keep a directory open for hours, or share one among several processes.
OWN_WAY = {("annotate", "output"): False, ("train", "workdir"): True}


@contextlib.contextmanager
def on_this_machine(module: str, words: Sequence[str] = ()) -> Iterator[None]:
    """Replace paths in object stores, in the flags of a command, by paths on this machine.

    Args:
      module: module of the command.
      words: arguments that belong to no flag.

    Raises:
      InputError: a scheme is not supported, a flag accepts no such path, or the store fails.
    """
    for word in words:
        refuse_remote(word, f"{word!r}")
    command = module.rpartition(".")[2]
    given = [flag for flag in flags.FLAGS.get_key_flags_for_module(module) if _remote_values(flag)]
    given = [flag for flag in given if not _handles_itself(command, flag)]
    _refuse_inside([flag for flag in given if flag.name in WRITTEN], given)
    with contextlib.ExitStack() as stack:
        for flag in given:
            _replace(flag, stack)
        yield


def _handles_itself(command: str, flag: flags.Flag) -> bool:
    """Return True if the command handles remote paths of this flag itself.

    Raises:
      InputError: the flag accepts only paths on this machine.
    """
    own = OWN_WAY.get((command, flag.name))
    if own or (own is None and flag.name in KNOWN_INSIDE):
        require_scheme(str(flag.value), f"--{flag.name}", *["hf"] * (flag.name != "workdir"))
        return True
    if own is False or flag.name not in READ | WRITTEN:
        refuse_remote(_remote_values(flag)[0], f"--{flag.name}")
    return False


def _replace(flag: flags.Flag, stack: contextlib.ExitStack) -> None:
    what = f"--{flag.name}"
    if flag.name in READ:
        _set(flag, lambda path: os.fspath(fetched(path, what)))
        return
    remote = str(flag.value)
    local = stack.enter_context(mirrored(remote, what))
    stack.callback(lambda: print(f"{local} goes to {remote}", flush=True))
    _set(flag, lambda _: os.fspath(local))


def _set(flag: flags.Flag, place: Callable[[str], str]) -> None:
    change = lambda value: place(value) if is_remote(value) else value  # noqa: E731
    value = flag.value
    flag.value = [change(x) for x in value] if isinstance(value, list) else change(value)


def _remote_values(flag: flags.Flag) -> list[str]:
    values: list[Any] = flag.value if isinstance(flag.value, list) else [flag.value]
    return [value for value in values if isinstance(value, str) and is_remote(value)]


def _refuse_inside(written: Sequence[flags.Flag], given: Sequence[flags.Flag]) -> None:
    """Refuse an output path inside an input directory."""
    read = [(flag, path) for flag in given if flag.name in READ for path in _remote_values(flag)]
    for flag in written:
        for source, path in read:
            if f"{str(flag.value).rstrip('/')}/".startswith(f"{path.rstrip('/')}/"):
                raise InputError(
                    f"--{flag.name}={flag.value} is within --{source.name}={path}, which this "
                    "command reads: choose another"
                )
