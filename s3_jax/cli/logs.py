"""What commands say beside their results."""

import logging as python_logging

from absl import flags, logging


def quiet_logging() -> None:
    """Warnings, and what s3_jax itself has to say, as plain lines; more with --verbosity."""
    logging.get_absl_handler().setFormatter(python_logging.Formatter("%(levelname)s: %(message)s"))
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
        python_logging.getLogger("s3_jax").setLevel(python_logging.INFO)
