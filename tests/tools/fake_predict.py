"""`python -m tests.tools.fake_predict` is the predict command with a stand-in session."""

import contextlib

from s3_jax.cli import command, predict, propagation_flags
from s3_jax.config import MODELS, ModelConfig
from tests.tools.fake_session import FakeSession


@contextlib.contextmanager
def _workplace():
    yield FakeSession


if __name__ == "__main__":
    predict._find_checkpoint = predict.Path
    propagation_flags._network_of = lambda checkpoint: MODELS.get(checkpoint.name, ModelConfig())
    predict._workplaces = lambda checkpoint, config: ([], [_workplace])
    command.run(predict.main)
