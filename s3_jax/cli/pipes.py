"""Output whose reader stops before the end, as in `s3 --help | head`."""

import os
import sys


def forget_output() -> None:
    """Discard the rest of standard output after its reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
