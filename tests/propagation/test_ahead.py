"""Frames encoded ahead of their turn: same results, bounded, in order, refused when it is time."""

import threading

import numpy as np
import pytest

from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError
from s3_jax.propagation.ahead import encode_ahead
from s3_jax.propagation.session import Session
from tests.propagation.conftest import TINY, Video


class Watched(Session):
    """A session that notes which of its frames are encoded, and in which threads."""

    def reset(self):
        super().reset()
        self.encoded: list[int] = []
        self.threads: set[int] = set()

    def encode(self, image):
        self.encoded.append(int(image[0, 0, 0]))
        self.threads.add(threading.get_ident())
        return super().encode(image)


@pytest.fixture()
def session(tiny_network):
    return Watched(TINY, tiny_network.variables, PropagationConfig(mem_every=3))


def numbered(video: Video, count: int = 8) -> list[np.ndarray]:
    """Return frames whose first value is their number."""
    frames = [frame.copy() for frame in video.frames[:count]]
    for i, frame in enumerate(frames):
        frame[0, 0] = i
    return frames


def test_results_are_those_of_steps_bit_by_bit(session, video):
    frames = numbered(video)
    session.add(video.hard_masks(0, 1, 2, 3))
    stepped = [session.step(f, end=i == 7).prob for i, f in enumerate(frames)]
    assert session.threads == {threading.get_ident()}
    session.reset()
    session.add(video.hard_masks(0, 1, 2, 3))
    np.testing.assert_array_equal([r.prob for r in session.propagate(frames)], stepped)
    assert threading.get_ident() not in session.threads
    assert session.encoded == list(range(8))


def test_a_frame_is_encoded_once_for_several_steps(session, video):
    frames = numbered(video)
    session.add(video.hard_masks(0, 1))
    session.step(frames[0])
    before, encoded = session.snapshot(), session.encode(frames[1])
    first = session.step(encoded).prob
    session.restore(before)
    np.testing.assert_array_equal(session.step(encoded).prob, first)
    assert session.encoded == [0, 1]


def test_frames_before_the_first_object_are_not_encoded(session, video):
    session.add(video.hard_masks(3, 1), frame_index=3)
    results = list(session.propagate(numbered(video)))
    assert [len(r.object_ids) for r in results] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert session.encoded == [3, 4, 5, 6, 7]


def test_a_frame_of_another_size_is_refused_in_its_turn(session, video):
    frames = numbered(video, 4)
    frames[2] = frames[2][:32]
    session.add(video.hard_masks(0, 1))
    results = []
    with pytest.raises(InputError, match="frame 2 is 96x32 but the video so far is 96x64"):
        results.extend(session.propagate(frames))
    assert session.frame_index == 2
    other = Session(session.config, session.network.variables).encode(frames[2])
    with pytest.raises(InputError, match="frame 2 is 96x32 but"):
        session.step(other)


def test_a_frame_of_another_session_is_refused(session, video):
    session.add(video.hard_masks(0, 1))
    session.step(video.frames[0])
    other = Session(session.config, session.network.variables, PropagationConfig(flip=True))
    with pytest.raises(InputError, match="frame 1 was encoded by another session"):
        session.step(other.encode(video.frames[1]))
    assert session.step(session.encode(video.frames[1])).object_ids == (1,)


def test_an_object_that_comes_during_the_loop_is_in_the_next_frame(session, video):
    """Frames that were read before the object came are encoded by their steps."""
    found = []
    for result in session.propagate(numbered(video)):
        found.append(len(result.object_ids))
        if result.frame_index == 2:
            session.add(video.hard_masks(3, 1))
    assert found == [0, 0, 0, 1, 1, 1, 1, 1]
    assert sorted(session.encoded) == [3, 4, 5, 6, 7]


def test_accelerators_get_no_thread_and_images_as_they_are(session, video, monkeypatch):
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    count = threading.active_count()
    frames = numbered(video, 3)
    for (item, image), frame in zip(
        encode_ahead(session, frames, lambda image: image), frames, strict=True
    ):
        assert item is frame and image is frame
        assert threading.active_count() == count
    assert session.encoded == []


def test_it_stays_three_frames_ahead_at_most_and_stops_when_left(session, video):
    read: list[int] = []

    def frames():
        for i in range(1000):
            read.append(i)
            yield video.frames[0]

    count = threading.active_count()
    ahead = encode_ahead(session, frames(), lambda image: image)
    for done in range(1, 6):
        next(ahead)
        assert len(read) <= done + 3
    ahead.close()
    assert threading.active_count() == count
    assert len(read) <= 8


def test_an_error_of_the_frames_follows_the_frames_before_it(session, video):
    def frames():
        yield from numbered(video, 3)
        raise OSError("the disk is gone")

    session.add(video.hard_masks(0, 1))
    with pytest.raises(OSError, match="the disk is gone"):
        list(session.propagate(frames()))
    assert session.frame_index == 2  # one frame waits to learn whether it is the last
