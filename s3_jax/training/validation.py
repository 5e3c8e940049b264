"""Evaluation of a network on the validation videos of a run."""

import jax
import jax.numpy as jnp
from absl import logging

from s3_jax.benchmarks.protocols import PROTOCOLS
from s3_jax.benchmarks.score_folders import frame_names
from s3_jax.benchmarks.summary import RunSummary
from s3_jax.benchmarks.validation import ValidationRules, validate
from s3_jax.config import ModelConfig, PropagationConfig
from s3_jax.data.folders import EvaluationVideo, evaluation_videos
from s3_jax.errors import InputError
from s3_jax.media.image_files import shortened
from s3_jax.models.variables import Variables
from s3_jax.propagation.session import Session
from s3_jax.training.parallel import from_all_processes
from s3_jax.training.progress import Evaluation
from s3_jax.training.run_config import RunConfig
from s3_jax.training.run_data import below


class Validator:
    """Evaluator of networks on the validation videos of a run, which are listed once.

    enabled: True if validation videos are configured.

    Raises:
      InputError: videos are configured but missing.
    """

    def __init__(self, run: RunConfig):
        settings = run.validation
        self.enabled = bool(settings.path)
        self._rules = ValidationRules(
            PROTOCOLS[settings.protocol], settings.short_side, settings.max_frames
        )
        self._videos = _videos(run) if self.enabled else []

    def measure(self, config: ModelConfig, variables: Variables, dtype: str) -> Evaluation:
        """Return the scores (0 to 1) of a network; every process segments its share of the videos.

        Args:
          dtype: name of the dtype to compute in.

        Raises:
          InputError: a video cannot be read, in any process.
        """
        propagation = PropagationConfig.suiting(config).at_most(self._rules.short_side)
        session = Session(config, variables, propagation, dtype=jnp.dtype(dtype))

        def new_session() -> Session:
            """Reset and return the only session, which keeps its compiled programs."""
            session.reset()
            return session

        share = jax.process_index(), jax.process_count()
        return _evaluation(
            validate(new_session, self._videos, self._rules, share=share, gather=from_all_processes)
        )


def _videos(run: RunConfig) -> list[EvaluationVideo]:
    settings = run.validation
    root = below(run.data_root, settings.path, "validation.path")
    found = evaluation_videos(root, settings.images, settings.annotations, settings.subset)
    missing = sorted(set(settings.videos) - {video.name for video in found})
    if missing:
        raise InputError(f"validation.videos names {missing[0]!r}, which is not in {root}")
    chosen = [video for video in found if video.name in settings.videos or not settings.videos]
    return _scorable(chosen)


def _scorable(videos: list[EvaluationVideo]) -> list[EvaluationVideo]:
    """Leave out videos with a single mask, which the network is given, so none is left to score.

    Raises:
      InputError: no video is left.
    """
    scorable = [video for video in videos if len(frame_names(video.annotations)) > 1]
    alone = [str(video.annotations) for video in videos if video not in scorable]
    if videos and not scorable:
        raise InputError(
            f"validation: {alone[0]} holds a mask of one frame only, so no frame can be scored: "
            "add a mask of another frame, or train without validation (--config.validation.path=)"
        )
    if alone:
        logging.warning("validation leaves out videos with a single mask: %s", shortened(alone))
    return scorable


def _evaluation(result: RunSummary) -> Evaluation:
    columns = result.overall.columns()
    shown = [f"{name} {100 * columns[name]:.1f}" for name in ("J&F-Mean", "J-Mean", "F-Mean")]
    each = {name: video.overall.score for name, video in result.sequences.items()}
    return Evaluation(result.overall.score, columns, each, ", ".join(shown))
