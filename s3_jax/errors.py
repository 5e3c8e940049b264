"""The error for everything that is wrong with what a user gave, not with the program."""

_SHOWN = 40


class InputError(ValueError):
    """Something given by the user cannot be used; the message is one line with file and fix."""


def reason(error: BaseException) -> str:
    """What an exception says, on one line and without the file name that OSError adds."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def visible(text: str) -> str:
    """Text for a terminal: characters that would control it, and halves of broken ones, as their
    codes. Names of files may hold any."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def listed(problems: list[str]) -> str:
    """One problem as it is; several as their number and a line for each, the first 40 of them."""
    if len(problems) == 1:
        return problems[0]
    more = len(problems) - _SHOWN
    lines = problems[:_SHOWN] + ([f"... and {more} more"] if more > 0 else [])
    return "\n  ".join([f"{len(problems)} problems:", *lines])
