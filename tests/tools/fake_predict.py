"""`python -m tests.tools.fake_predict` is the predict command with a stand-in session."""

import contextlib

from tests.tools.fake_session import FakeSession
from tools import cli, predict


@contextlib.contextmanager
def _workplace():
    yield FakeSession


if __name__ == "__main__":
    predict._find_checkpoint = predict.Path
    predict._workplaces = lambda checkpoint, config: ([], [_workplace])
    cli.run(predict.main)
