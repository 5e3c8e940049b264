"""What commands say beside their results."""

import logging as python_logging

from absl import flags, logging


def quiet_logging() -> None:
    """Warnings only, as plain lines, unless --verbosity asks for more."""
    logging.get_absl_handler().setFormatter(python_logging.Formatter("%(levelname)s: %(message)s"))
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
