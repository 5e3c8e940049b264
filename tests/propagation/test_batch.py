"""Videos in a batch give the same results as alone."""

from typing import Any

import numpy as np
import pytest

from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError
from s3_jax.propagation import batch as batch_module
from s3_jax.propagation.batch import SessionBatch
from s3_jax.propagation.session import Session
from tests.propagation.conftest import TINY, Video

FRAMES = 7
CONFIG = PropagationConfig(mem_every=2, max_mem_frames=3)
VIDEOS = [Video(FRAMES, objects=1), Video(FRAMES, objects=3)]


def _flipped(video: Video) -> Video:
    """Another video of the same kind."""
    video.frames, video.masks = video.frames[:, ::-1].copy(), video.masks[:, ::-1].copy()
    return video


@pytest.fixture(scope="module")
def sessions(tiny_network):
    def make(config):
        return [Session(TINY, tiny_network.variables, config) for _ in range(2)]

    return make


def test_results_are_those_of_single_sessions(sessions):
    videos = [VIDEOS[0], _flipped(Video(FRAMES, objects=3))]
    batch = SessionBatch(sessions(CONFIG))
    together = [batch.start([v.frames[0] for v in videos], [v.masks[0] for v in videos])]
    together += [batch.step([v.frames[t] for v in videos]) for t in range(1, FRAMES)]
    for i, (video, session) in enumerate(zip(videos, sessions(CONFIG), strict=True)):
        session.add(video.masks[0])
        for t in range(FRAMES):
            alone, found = session.step(video.frames[t]), together[t][i]
            assert found.object_ids == alone.object_ids
            assert found.frame_index == t
            np.testing.assert_allclose(found.prob, alone.prob, atol=2e-4)


def test_one_program_serves_the_whole_batch(sessions):
    batch = SessionBatch(sessions(CONFIG))
    batch.start([v.frames[0] for v in VIDEOS], [v.masks[0] for v in VIDEOS])
    batch.step([v.frames[1] for v in VIDEOS])
    program: Any = batch_module._step
    before = program._cache_size()
    for t in range(2, FRAMES):
        batch.step([v.frames[t] for v in VIDEOS])
    assert program._cache_size() == before


def test_frames_must_have_one_size(sessions):
    batch = SessionBatch(sessions(CONFIG))
    small = VIDEOS[0].frames[0][:32]
    with pytest.raises(InputError, match="need frames of one size"):
        batch.start([VIDEOS[0].frames[0], small], [v.masks[0] for v in VIDEOS])
