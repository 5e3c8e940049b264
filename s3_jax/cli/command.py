"""Behaviour that commands share: errors are one line with exit code 1 instead of a traceback."""

import inspect
import re
import sys
from collections.abc import Callable

from absl import app, flags

from s3_jax.cli.commands import COMMANDS
from s3_jax.cli.extras import missing_package
from s3_jax.cli.pipes import forget_output
from s3_jax.cli.remote_flags import on_this_machine
from s3_jax.cli.visible_output import visible_output
from s3_jax.conversion.errors import ConversionError, TorchFileError
from s3_jax.errors import InputError, reason, visible
from s3_jax.limits import require_within

DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")
_NAMES = "|".join(sorted(COMMANDS, key=len, reverse=True))
_COMMAND = re.compile(rf"(?m)(?P<line>^ +)?\bs3 (?P<name>{_NAMES})\b(?P<flags>(?= --| \.\.\.))?")


def run(main: Callable[..., int | None]) -> None:
    """Parse the flags, run `main` and exit.

    The exit code is the result of `main` (0 for None), 1 after an error, and 130 after Ctrl-C. A
    `main` with a parameter receives the arguments that are not flags. --help shows the docstring
    and the flags of the module of `main`.
    """
    sys.modules["__main__"].__doc__ = as_typed(sys.modules[main.__module__].__doc__ or "")
    for module in (main.__module__, __name__):  # this module for --debug, which errors mention
        for flag in flags.FLAGS.get_key_flags_for_module(module):
            flag.help = as_typed(flag.help or "")
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(lambda argv: _guard(main, argv), flags_parser=_parse)


def as_typed(text: str) -> str:
    """Rewrite command names in the form that the user typed.

    If the current command was started as `python -m tools.segment`, `s3 score --...` becomes
    `python -m tools.score --...`, and `s3 score` alone becomes `tools.score`.
    """
    if _is_s3():
        return text
    return _COMMAND.sub(_as_tool, text)


def _as_tool(found: re.Match[str]) -> str:
    whole_line = found["line"] is not None or found["flags"] is not None
    start = (found["line"] or "") + ("python -m " if whole_line else "")
    return f"{start}tools.{COMMANDS[found['name']].tool}"


def _is_s3() -> bool:
    return sys.argv[0].startswith("s3 ")


def _parse(argv: list[str]) -> list[str]:
    """Return the arguments that are not flags; invalid flags end the command with one line."""
    try:
        return flags.FLAGS(argv)
    except SystemExit:  # after --help, for which absl has another exit code
        raise SystemExit(0) from None
    except BrokenPipeError:  # as in `--help | head`
        forget_output()
        raise SystemExit(0) from None
    except flags.Error as error:
        hint = "; --help lists all flags" if isinstance(error, flags.UnrecognizedFlagError) else ""
        raise SystemExit(fail(f"{reason(error)}{hint}")) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = " ".join(str(error.args[0] if error.args else error).split())
        raise SystemExit(fail(f"invalid configuration value: {problem}")) from error


def frame_size(text: str, flag: str = "size") -> tuple[int, int]:
    """Parse height and width from a flag's value, such as 480x864.

    Raises:
      InputError: the value is malformed or too large.
    """
    try:
        height, width = (int(n) for n in text.split("x"))
    except ValueError:
        raise InputError(f"--{flag} is {text!r}; write it like 480x864") from None
    if min(height, width) < 1:
        raise InputError(f"--{flag} is {text!r}; both sides must be at least 1")
    require_within("megapixels", height * width / 1e6, f"--{flag}={text} asks for large frames")
    return height, width


def _guard(main: Callable[..., int | None], argv: list[str]) -> int:
    try:
        with visible_output():
            return _result(main, argv)
    except BrokenPipeError:
        forget_output()
        return 0
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except Exception as error:
        if DEBUG.value:
            raise
        return fail(_message(error))


def _result(main: Callable[..., int | None], argv: list[str]) -> int:
    takes_words = bool(inspect.signature(main).parameters)
    if len(argv) > 1 and not takes_words:
        raise InputError(f"{argv[1]!r} does not belong to a flag: see --help for the usage")
    with on_this_machine(main.__module__, argv[1:]):
        code = main(argv[1:]) if takes_words else main()
    sys.stdout.flush()
    return code or 0


def _message(error: Exception) -> str:
    if isinstance(error, InputError | ConversionError | TorchFileError):
        return str(error)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{reason(error)}; check the path, its permissions and the free space"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return "out of memory: use smaller frames, fewer objects or a smaller batch"
    if isinstance(error, ModuleNotFoundError):
        return missing_package(error)
    return f"{type(error).__name__}: {reason(error)} (an error in the program; see --debug)"


def fail(message: str, code: int = 1) -> int:
    """Print an error message after the command's name, and return the exit code."""
    spec = sys.modules["__main__"].__spec__
    name = sys.argv[0] if _is_s3() or spec is None else spec.name
    print(f"{name}: {visible(as_typed(message))}", file=sys.stderr)
    return code
