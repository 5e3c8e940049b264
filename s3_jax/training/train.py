"""Training from a configuration, with the default parts for every stage.

    clip_loss, AdamW          `clip_loss.make_trainer`
    clips of the data sets    `run_data.clip_batches`
    J&F on validation videos  `validation.Validator`
    pictures of a clip        `callbacks.Pictures`

These parts are passed to `fit.run_stages`; to train with other parts, use `fit.fit`.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from s3_jax.training import run_config, run_data
from s3_jax.training.callbacks import Pictures
from s3_jax.training.fit import FitConfig, Outcome, run_stages
from s3_jax.training.parameter_groups import refuse_unmatched
from s3_jax.training.parts import Callback, Learnt, Stage, Variables
from s3_jax.training.progress import Evaluation
from s3_jax.training.run_config import RunConfig, StageConfig
from s3_jax.training.stages import first_variables, hand_over, stage_model, stage_trainer
from s3_jax.training.validation import Validator


def train(
    run: RunConfig, workdir: Path, adopt: bool = False, callbacks: Sequence[Callback] = ()
) -> Outcome:
    """Train to the end, or until SIGTERM or SIGINT; resume a run that was left unfinished.

    Args:
      workdir: directory for checkpoints, curves and the log; created if it does not exist.
      adopt: resume even if the directory holds a run with another configuration, or one that was
        stopped by a problem.
      callbacks: callbacks to run in addition to the default ones.

    Raises:
      InputError: the configuration, its data or its checkpoints cannot be used; training went
        wrong (the message names the file with the batch); or the disk is full.
    """
    run_data.refuse_uneven_batches(run)
    with run_data.claim(workdir, run, adopt):
        stages = usual_stages(run)
        about = run_config.to_dict(run)
        return run_stages(
            workdir, stages, about, fit_config(run), (*usual_callbacks(run), *callbacks), run.seed,
            run.devices,
        )  # fmt: skip


def usual_stages(run: RunConfig) -> list[Stage]:
    """Return the stages of a configuration, with the default parts.

    Raises:
      InputError: the validation videos are missing.
    """
    validator = Validator(run)
    return [_stage(run, stage, validator) for stage in run.stages]


def usual_callbacks(run: RunConfig) -> Sequence[Callback]:
    """Return the default callbacks: pictures of a clip, unless `images_every` is 0."""
    return (Pictures(run.images_every),) if run.images_every else ()


def fit_config(run: RunConfig) -> FitConfig:
    """Return the settings of `fit` that correspond to a run's configuration."""
    return FitConfig(
        log_every=run.log_every,
        save_every=run.save_every,
        evaluate_every=run.validation.every,
        evaluate_first=run.validation.at_start,
        keep_first=run.validation.keep_start,
        patience=run.validation.patience,
        export_best=run.validation.export_best,
        keep=run.keep,
        divergence=run.divergence,
        max_skipped=run.max_skipped,
    )


def _stage(run: RunConfig, stage: StageConfig, validator: Validator) -> Stage:
    model = stage_model(run, stage)

    def begin(before: Learnt | None) -> Variables:
        """Return the variables that the stage starts from."""
        if before is None:
            variables = first_variables(run)
        else:
            variables = hand_over(before.model, before.variables, model, run.seed)
        where = f"stages.{stage.name}.step.frozen"
        refuse_unmatched(variables["params"], stage.step.frozen, where)
        return variables

    def evaluate(variables: Variables) -> Evaluation:
        """Score the network on the validation videos."""
        return validator.measure(model, variables, stage.dtype)

    return Stage(
        name=stage.name,
        steps=stage.steps,
        model=model,
        begin=begin,
        trainer=stage_trainer(run, stage),
        data=functools.partial(run_data.clip_batches, run, stage),
        evaluate=evaluate if validator.enabled else None,
        step_input=run_data.clip_batch,
    )
