"""Run a tool as if the checkpoints in $SHIPPED came with the package.

SHIPPED=DIRECTORY python -m tests.tools.with_shipped tools.segment --checkpoint=NAME ...
"""

import os
import runpy
import sys
from pathlib import Path

from s3_jax.checkpoints import model as checkpoint

if __name__ == "__main__":
    checkpoint.SHIPPED = Path(os.environ["SHIPPED"])
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
