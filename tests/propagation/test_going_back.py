"""A session returns to snapshots of itself, and reserves capacity in advance."""

import numpy as np
import pytest

from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError
from s3_jax.propagation.session import Session
from tests.propagation.conftest import TINY, Video
from tests.support.marks import slow

SETTINGS = {
    "working": PropagationConfig(mem_every=3),
    "long_term": PropagationConfig(
        mem_every=2, long_term=True, lt_max_frames=3, lt_min_frames=2, lt_prototypes=4,
        lt_max_tokens=16, lt_buffer_tokens=4,
    ),
}  # fmt: skip


def make(network, name: str = "working") -> Session:
    return Session(TINY, network.variables, SETTINGS[name])


def steps(session: Session, video: Video, until: int) -> list[np.ndarray]:
    return [np.array(session.step(video.frames[i]).prob)
            for i in range(session.frame_index, until)]  # fmt: skip


@pytest.mark.parametrize("name", ["working", slow("long_term")])
def test_what_follows_a_snapshot_can_be_had_again(tiny_network, video, name):
    """Bit for bit, however far the session went in between, and more than once."""
    session = make(tiny_network, name)
    session.add(video.hard_masks(0, 1, 2))
    session.add(video.hard_masks(5, 3), frame_index=5)
    steps(session, video, 4)
    snapshot = session.snapshot()
    assert snapshot.frame_index == 4 and snapshot.nbytes > 0
    expected = steps(session, video, 9)
    session.delete([1])
    for _ in range(2):
        session.restore(snapshot)
        assert session.frame_index == 4 and session.object_ids == (1, 2)
        for again, before in zip(steps(session, video, 9), expected, strict=True):
            np.testing.assert_array_equal(again, before)


def test_a_past_frame_is_corrected_from_a_snapshot(tiny_network, video):
    session = make(tiny_network)
    session.add(video.hard_masks(0, 1))
    steps(session, video, 3)
    snapshot = session.snapshot()
    steps(session, video, 8)
    with pytest.raises(InputError, match=r"processed already.*restore\(\)"):
        session.add(video.hard_masks(3, 1), frame_index=3)
    session.restore(snapshot)
    session.add(video.hard_masks(3, 1), frame_index=3)
    corrected = steps(session, video, 8)
    fresh = make(tiny_network)
    fresh.add(video.hard_masks(0, 1))
    fresh.add(video.hard_masks(3, 1), frame_index=3)
    np.testing.assert_array_equal(corrected, steps(fresh, video, 8)[3:])


def test_a_snapshot_from_before_the_first_frame_is_empty(tiny_network, video):
    session = make(tiny_network)
    session.add(video.hard_masks(0, 1))
    snapshot = session.snapshot()
    expected = steps(session, video, 3)
    session.restore(snapshot)
    np.testing.assert_array_equal(steps(session, video, 3), expected)


def test_a_restored_session_is_saved_and_loaded(tiny_network, video, tmp_path):
    session = make(tiny_network)
    session.add(video.hard_masks(0, 1, 2))
    steps(session, video, 3)
    snapshot = session.snapshot()
    steps(session, video, 6)
    session.restore(snapshot)
    session.save(tmp_path / "session")
    other = make(tiny_network)
    other.load(tmp_path / "session")
    np.testing.assert_array_equal(steps(session, video, 6), steps(other, video, 6))


def test_room_made_beforehand_changes_no_result_and_is_enough(tiny_network, video):
    plain, roomy = make(tiny_network), make(tiny_network)
    roomy.reserve(3, 2)
    assert roomy.capacity.objects == 3 and roomy.capacity.buckets == 2
    results = []
    for session in (plain, roomy):
        session.add(video.hard_masks(0, 1))
        session.add(video.hard_masks(4, 2, 3), frame_index=4)
        results.append([p.shape for p in steps(session, video, 3)])
        results.append(steps(session, video, 8))
    assert roomy.capacity.objects == 3 and roomy.capacity.buckets == 2
    assert results[0] == results[2]
    for one, other in zip(results[1], results[3], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    assert plain.buckets == roomy.buckets == 2


def test_room_can_be_made_in_a_running_video(tiny_network, video):
    session, plain = make(tiny_network), make(tiny_network)
    for one in (session, plain):
        one.add(video.hard_masks(0, 1))
        steps(one, video, 3)
    session.reserve(2, 2)
    np.testing.assert_allclose(steps(session, video, 6), steps(plain, video, 6), atol=2e-5)
