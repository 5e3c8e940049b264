"""Fixtures: recordings, and the networks of the recordings run once per session."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from s3_jax.config import MODELS
from s3_jax.conversion.weights import from_torch
from tests.support import stages, weights
from tests.support.goldens import Recording, load_keys
from tests.support.stage_names import by_recorded_name


@pytest.fixture(scope="session")
def compute_stages(goldens: Path) -> Callable[[str, Recording], dict[str, np.ndarray]]:
    """Return a function from a model's name and its recording (for the inputs) to all our stages.

    A model is computed once; recordings of the same model have the same inputs.
    """
    computed: dict[str, dict[str, np.ndarray]] = {}
    shapes = functools.cache(lambda: load_keys(goldens))

    def compute(model: str, recording: Recording) -> dict[str, np.ndarray]:
        if model not in computed:
            config = MODELS[model]
            variables = from_torch(weights.state_dict(shapes()[model]), config)
            found = stages.run(config, variables, recording.below("in."))
            computed[model] = by_recorded_name(config, variables["params"], found)
        return computed[model]

    return compute
