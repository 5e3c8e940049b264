"""Log messages of commands."""

import logging as python_logging

from absl import flags, logging


def quiet_logging() -> None:
    """Show warnings and messages of s3_jax as plain lines; --verbosity shows more."""
    logging.get_absl_handler().setFormatter(python_logging.Formatter("%(levelname)s: %(message)s"))
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
        python_logging.getLogger("s3_jax").setLevel(python_logging.INFO)
