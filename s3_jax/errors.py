"""Errors that are caused by a user's input rather than by the program."""

_SHOWN = 40


class InputError(ValueError):
    """Error for unusable input; the message is one line that names the file and the fix."""


def reason(error: BaseException) -> str:
    """Return an exception's message on one line, without the file name that OSError adds."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def visible(text: str) -> str:
    """Return a text that is safe to print in a terminal.

    Control characters and lone surrogates, which file names may contain, are escaped.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def listed(problems: list[str]) -> str:
    """Format one problem as it is, and several as their number and one line each (up to 40)."""
    if len(problems) == 1:
        return problems[0]
    more = len(problems) - _SHOWN
    lines = problems[:_SHOWN] + ([f"... and {more} more"] if more > 0 else [])
    return "\n  ".join([f"{len(problems)} problems:", *lines])
