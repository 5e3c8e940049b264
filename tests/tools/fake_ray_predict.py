"""`python -m tests.tools.fake_ray_predict` is the predict command whose actors, too, have a
stand-in session."""

import contextlib

from s3_jax.cli import command, predict, propagation_flags
from s3_jax.config import ModelConfig
from tests.tools.fake_session import FakeSession

FRAME = "0.05"  # seconds that a frame takes an actor


@contextlib.contextmanager
def _workplace():
    yield FakeSession


def _first_workplace(checkpoint, config, dtype):
    import os

    os.environ["DELAY"] = FRAME
    return [{"device": "stand-in", "kind": "none", "peak_memory": None}], _workplace


if __name__ == "__main__":
    predict._find_checkpoint = predict.Path
    propagation_flags._network_of = lambda checkpoint: ModelConfig()
    predict._workplaces = lambda checkpoint, config: ([], [_workplace])
    predict._first_workplace = _first_workplace
    command.run(predict.main)
