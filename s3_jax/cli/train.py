r"""Train a network from a configuration, with checkpoints, curves and exact resume.

  s3 train --config=smoke --workdir=runs/smoke

After a crash, a kill or Ctrl-C, give the same command again. Training goes on from the last
checkpoint, with the same numbers as in an uninterrupted run.

You can set any value of the configuration on the command line:

  --config.stages.video.batch_size=8 --config.data_root=/data --config.save_every=500

On several hosts, start the same command on each, with the same --workdir and

  --coordinator=FIRST_HOST:PORT --processes=N --process=0 (1, 2, ... on the others)

or with --coordinator=auto on TPU pods and under Slurm. Each batch is divided among all hosts and
their devices. The losses are the same up to rounding for any number of them.

Files in --workdir:
  checkpoints/<step>/   the latest checkpoints, and the one with the best validation score
  stages/<name>/        the network at the end of each stage except the last
  metrics.jsonl         losses and validation scores; steps/s, frames/s, share of the devices' peak,
                        seconds per step spent waiting for data, memory
  heartbeat.json        the last step and its time (heartbeat_1.json, ... on other hosts)
  summary.html          the run on one page: progress, curves, scores, speed, settings
  profile/              with --profile_steps=100:110, an XProf trace of those steps
  tensorboard/          the same metrics as curves, and images: tensorboard --logdir=WORKDIR
  run.json              the configuration, which must match when you resume

You can pass WORKDIR as a checkpoint (`s3 segment --checkpoint=WORKDIR`, `s3 convert
--input=WORKDIR`). It stands for the step with the best validation score, or the last step if there
was no validation.
"""

from absl import flags

from s3_jax.cli import config_flag
from s3_jax.cli.logs import quiet_logging
from s3_jax.errors import InputError, reason

CONFIG = config_flag.define_config_flag()
flags.adopt_module_key_flags(config_flag)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run. Required.")
ADOPT = flags.DEFINE_bool(
    "adopt_config",
    False,
    "Resume with this configuration in a directory that has another one, or after a failed run.",
)
PROFILE = flags.DEFINE_string(
    "profile_steps",
    None,
    "Steps of the whole run to trace for XProf, such as 100:110; written to WORKDIR/profile.",
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "For several hosts: the first host and a free port on it, or auto."
)
PROCESSES = flags.DEFINE_integer("processes", None, "Number of hosts.", lower_bound=1)
PROCESS = flags.DEFINE_integer("process", None, "Index of this host, from 0.", lower_bound=0)


def main() -> None:
    if not (CONFIG.value and WORKDIR.value):
        raise InputError("give --config and --workdir; --help shows how the command is used")
    profiled = _profiled_steps()
    # Imported late: loading JAX takes seconds, and flag errors do not need it.
    import jax

    from s3_jax.analysis.peak import ShareOfPeak
    from s3_jax.cli.compilation import enable_compilation_cache
    from s3_jax.remote import mirrored
    from s3_jax.training import run_config
    from s3_jax.training.callbacks import Profile
    from s3_jax.training.parts import Callback
    from s3_jax.training.progress import say
    from s3_jax.training.train import train

    quiet_logging()
    _join_other_hosts()
    # On CPUs, processes wait only 30 seconds for one another at their first exchange. A process
    # that found its program in the cache would time out while the others compile.
    if jax.process_count() == 1 or jax.default_backend() != "cpu":
        enable_compilation_cache()
    run = run_config.from_dict(CONFIG.value.to_dict())
    with mirrored(WORKDIR.value, "--workdir", writes=jax.process_index() == 0) as workdir:
        callbacks: list[Callback] = [ShareOfPeak()]
        callbacks += [Profile(*profiled, workdir / "profile")] if profiled else []
        outcome = train(run, workdir, adopt=ADOPT.value, callbacks=callbacks)
    done = f"finished {outcome.step}"
    if outcome.stopped:
        done = f"stopped on request after {outcome.step} of {run.total_steps}"
    say(f"{done} steps; the network is in {WORKDIR.value}")


def _profiled_steps() -> tuple[int, int] | None:
    if PROFILE.value is None:
        return None
    try:
        first, last = (int(n) for n in PROFILE.value.split(":"))
    except ValueError:
        first, last = 0, 0
    if not 0 < first < last:
        raise InputError(f"--profile_steps is {PROFILE.value!r}; write it like 100:110, from 1 up")
    return first, last


def _join_other_hosts() -> None:
    from s3_jax.training.parallel import join_processes

    given = (COORDINATOR.value, PROCESSES.value, PROCESS.value)
    if given == (None, None, None):
        return
    try:
        join_processes(*(() if given == ("auto", None, None) else given))
    except (ValueError, RuntimeError) as error:
        raise InputError(f"cannot join the other hosts: {reason(error)}") from error
