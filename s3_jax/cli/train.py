r"""Train a network: a configuration and a directory in, checkpoints and curves out.

  s3 train --config=smoke --workdir=runs/smoke

Give the same command again after a crash, a kill or Ctrl-C: it goes on from the last checkpoint,
with the same numbers as if nothing had happened. Any value of the configuration can be given on the
command line, by its name:

  --config.stages.video.batch_size=8 --config.data_root=/data --config.save_every=500

On several hosts, start the same command on each, on the same --workdir, with

  --coordinator=FIRST_HOST:PORT --processes=N --process=0 (1, 2, ... on the others)

or with --coordinator=auto where the cluster announces itself (TPU pods, Slurm). A batch is spread
over all hosts and their devices, and losses are the same to rounding, however many there are.

What appears in --workdir:
  checkpoints/<step>/   the latest ones, and the one with the best validation score
  stages/<name>/        the network at the end of each stage but the last
  metrics.jsonl         losses and validation scores; steps/s, frames/s, share of the devices' peak,
                        seconds of a step that wait for data, memory
  heartbeat.json        when the run was last at which step (heartbeat_1.json, ... on other hosts)
  summary.html          the run on a page: how far, curves, scores, speed, settings
  profile/              with --profile_steps=100:110, an XProf trace of these steps
  tensorboard/          the same as curves, and pictures: tensorboard --logdir=WORKDIR
  run.json              the configuration, which later starts have to agree with

Where WORKDIR is given as a checkpoint (`s3 segment --checkpoint=WORKDIR`, `s3 convert
--input=WORKDIR`) it is the step with the best validation score, or the last one if there was no
validation.
"""

from absl import flags

from s3_jax.cli import config_flag
from s3_jax.cli.logs import quiet_logging
from s3_jax.errors import InputError, reason

CONFIG = config_flag.define_config_flag()
flags.adopt_module_key_flags(config_flag)
WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run. Required.")
ADOPT = flags.DEFINE_bool(
    "adopt_config", False, "Go on with this configuration in a directory of another one."
)
PROFILE = flags.DEFINE_string(
    "profile_steps",
    None,
    "Steps to trace for XProf, like 100:110 of the whole run; written to WORKDIR/profile.",
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "Of several hosts, the first one and a free port of it, or auto."
)
PROCESSES = flags.DEFINE_integer("processes", None, "How many hosts there are.", lower_bound=1)
PROCESS = flags.DEFINE_integer("process", None, "Which of them this is, from 0.", lower_bound=0)


def main() -> None:
    if not (CONFIG.value and WORKDIR.value):
        raise InputError("give --config and --workdir; --help shows how the command is used")
    profiled = _profiled_steps()
    # Imported late: JAX takes seconds, which wrong flags need not wait for.
    import jax

    from s3_jax.analysis.peak import ShareOfPeak
    from s3_jax.cli.compilation_cache import enable_compilation_cache
    from s3_jax.remote import mirrored
    from s3_jax.training import run_config
    from s3_jax.training.callbacks import Profile
    from s3_jax.training.parts import Callback
    from s3_jax.training.progress import say
    from s3_jax.training.train import train

    quiet_logging()
    _join_other_hosts()
    # Processes on CPUs wait 30 seconds for one another at their first exchange: all of them must
    # compile, or one that found its program in the cache gives up on the others.
    if jax.process_count() == 1 or jax.default_backend() != "cpu":
        enable_compilation_cache()
    run = run_config.from_dict(CONFIG.value.to_dict())
    with mirrored(WORKDIR.value, "--workdir", writes=jax.process_index() == 0) as workdir:
        callbacks: list[Callback] = [ShareOfPeak()]
        callbacks += [Profile(*profiled, workdir / "profile")] if profiled else []
        outcome = train(run, workdir, adopt=ADOPT.value, callbacks=callbacks)
    done = f"finished {outcome.step}"
    if outcome.stopped:
        done = f"stopped as asked after {outcome.step} of {run.total_steps}"
    say(f"{done} steps; the network is in {WORKDIR.value}")


def _profiled_steps() -> tuple[int, int] | None:
    if PROFILE.value is None:
        return None
    try:
        first, last = (int(n) for n in PROFILE.value.split(":"))
    except ValueError:
        first, last = 0, 0
    if not 0 < first < last:
        raise InputError(f"--profile_steps is {PROFILE.value!r}; write it like 100:110, from 1 on")
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
