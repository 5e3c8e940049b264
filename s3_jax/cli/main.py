"""The command `s3`, which finds the named command and runs it.

Only that command's module is imported, so that flags of different commands do not collide and help
appears at once.
"""

import difflib
import importlib
import sys

from s3_jax.cli.commands import COMMANDS, GROUPS, LARGE_PAGES
from s3_jax.cli.extras import missing_package
from s3_jax.cli.large_pages import ask_for_large_pages
from s3_jax.cli.pipes import forget_output

INTRODUCTION = """\
s3: video object segmentation in JAX.

Give a video and masks of the objects in its first frame, and get their masks in every frame:

  s3 segment --video=cats.mp4 --masks=first.png --checkpoint=s3_lite --output=results/cats

s3_lite is a small network that comes with the package. To try it on a bundled clip:

  s3 demo
"""
ENDING = """\
s3 COMMAND --help explains a command and its flags. s3 --version prints the version."""


def main() -> None:
    """Run the command that the command line names, and exit with its code."""
    words = sys.argv[1:]
    name = " ".join(words[:2]) if words[:1] == ["bench"] else " ".join(words[:1])
    if name in COMMANDS:
        arguments = words[len(name.split()) :]
        sys.argv = [f"s3 {name}", *("--help" if x == "-h" else x for x in arguments)]
        run(name)
    elif name in ("", "help", "--help", "-h", "-help", "bench", "bench --help", "bench -h"):
        _show(help_text("bench " if name.startswith("bench") else ""))
    elif name in ("--version", "version"):
        from s3_jax import __version__

        print(f"s3 {__version__}")
    else:
        sys.exit(_unknown(name))


def _show(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        forget_output()


def help_text(prefix: str = "") -> str:
    """Return the text of `s3 --help`, or of `s3 bench --help` for the prefix "bench "."""
    groups = []
    for title, names in GROUPS.items():
        rows = [f"  s3 {n:<18} {COMMANDS[n].purpose}" for n in names if n.startswith(prefix)]
        groups += ["\n".join([f"{title}:", *rows])] if rows else []
    return "\n\n".join([*([] if prefix else [INTRODUCTION.rstrip()]), *groups, ENDING])


def run(name: str) -> None:
    """Run one command with the arguments in `sys.argv`, and exit with its code.

    A command that needs large pages restarts before anything large is imported.
    """
    if name in LARGE_PAGES:
        ask_for_large_pages()
    try:
        module = importlib.import_module(f"s3_jax.cli.{COMMANDS[name].module}")
    except ModuleNotFoundError as error:
        sys.exit(f"s3 {name}: {missing_package(error)}")
    from s3_jax.cli import command

    command.run(module.main)


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
    guess = f"did you mean s3 {near[0]}?" if near else "s3 --help lists the commands"
    return f"s3: there is no command {name!r}; {guess}"
