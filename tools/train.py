r"""Train a network: a configuration and a directory in, checkpoints and curves out.

  python -m tools.train --config=configs/smoke.py --workdir=runs/smoke

Give the same command again after a crash, a kill or Ctrl-C: it goes on from the last checkpoint,
with the same numbers as if nothing had happened. Any value of the configuration can be given on
the command line, by its name:

  --config.stages.video.batch_size=8 --config.data_root=/data --config.save_every=500

What appears in --workdir:
  checkpoints/<step>/   the latest ones, and the one with the best validation score
  stages/<name>/        the network at the end of each stage but the last
  metrics.jsonl         losses and validation scores
  run.json              the configuration, which later starts have to agree with

`tools.segment --checkpoint=WORKDIR` and `tools.convert_checkpoint --input=WORKDIR` take the latest.
"""

from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from s3_jax.errors import InputError
from tools import cli

CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file. Required.")
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run. Required.")
ADOPT = flags.DEFINE_bool(
    "adopt_config", False, "Go on with this configuration in a directory of another one."
)


def main() -> None:
    if not (CONFIG.value and WORKDIR.value):
        raise InputError("give --config and --workdir; --help shows how the command is used")
    # Imported late: JAX takes seconds, which wrong flags need not wait for.
    from s3_jax.compilation_cache import enable_compilation_cache
    from s3_jax.training import run_config
    from s3_jax.training.loop import train

    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    enable_compilation_cache()
    run = run_config.from_dict(CONFIG.value.to_dict())
    outcome = train(run, Path(WORKDIR.value), adopt=ADOPT.value)
    what = "stopped as asked after" if outcome.stopped else "finished"
    print(f"{what} {outcome.step} steps; the network is in {WORKDIR.value}")


if __name__ == "__main__":
    cli.run(main)
