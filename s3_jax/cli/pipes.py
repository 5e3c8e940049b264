"""Output that nobody reads to its end, as with `s3 --help | head`."""

import os
import sys


def forget_output() -> None:
    """Send what is left of standard output nowhere: its reader has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
