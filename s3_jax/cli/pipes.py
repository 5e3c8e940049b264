"""Output that is not read to its end, as with `s3 --help | head`."""

import os
import sys


def forget_output() -> None:
    """Discard the rest of standard output, since its reader is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
