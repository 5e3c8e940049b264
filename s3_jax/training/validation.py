"""Measuring a network on the validation videos of a run."""

from pathlib import Path

import jax.numpy as jnp

from s3_jax.benchmarks.protocols import PROTOCOLS
from s3_jax.benchmarks.summary import RunSummary
from s3_jax.benchmarks.validation import ValidationRules, validate
from s3_jax.config import ModelConfig, PropagationConfig
from s3_jax.conversion.weights import Variables
from s3_jax.data.folders import evaluation_videos
from s3_jax.propagation.session import Session
from s3_jax.training.run_config import RunConfig


class Validator:
    """The validation videos of a run, listed once.

    enabled: whether there are any.

    Raises:
      InputError: they are configured but missing.
    """

    def __init__(self, run: RunConfig):
        settings = run.validation
        self.enabled = bool(settings.path)
        self._rules = ValidationRules(
            PROTOCOLS[settings.protocol], settings.short_side, settings.max_frames
        )
        self._videos = (
            evaluation_videos(
                Path(run.data_root, settings.path),
                settings.images,
                settings.annotations,
                settings.subset,
            )
            if self.enabled
            else []
        )

    def measure(self, config: ModelConfig, variables: Variables, dtype: str) -> RunSummary:
        """Scores of a network.

        Raises:
          InputError: a video cannot be read.
        """
        session = Session(config, variables, PropagationConfig(), dtype=jnp.dtype(dtype))

        def new_session() -> Session:
            session.reset()
            return session

        return validate(new_session, self._videos, self._rules)
