"""A host that resumes from its checkpoints and saves two more.

  python -m tests.training.hosts WORKDIR COORDINATOR PROCESSES PROCESS

Prints the step of the checkpoint that it resumed from, the checkpoints set aside on this host, the
step of the best checkpoint at the end, and the checkpoints on this host.
"""

import json
import sys
from pathlib import Path

from s3_jax.training.checkpoints import Checkpoints
from s3_jax.training.parallel import join_processes
from tests.support.tiny_models import TINY_VIT
from tests.training.test_checkpoints import record, state_of


def main(workdir: str, coordinator: str, processes: str, process: str) -> None:
    join_processes(coordinator, int(processes), int(process))
    with Checkpoints(Path(workdir), keep=2) as checkpoints:
        restored = checkpoints.restore()
        assert restored is not None
        begun = restored.record.step
        for step in (begun, begun + 1, begun + 2):
            checkpoints.save(TINY_VIT, state_of(seed=step), record(step, score=1 / step))
        best, here = checkpoints.best(), checkpoints.steps()
    aside = sorted(path.name for path in Path(workdir).glob("damaged/*"))
    print(json.dumps([begun, aside, best, here]))


if __name__ == "__main__":
    main(*sys.argv[1:])
