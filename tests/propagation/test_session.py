"""The session: objects come, are corrected, and go, at any frame and in any combination."""

import dataclasses
import os
import signal
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError
from s3_jax.propagation.session import Session, _id
from tests.propagation.conftest import TINY, WIDE, Video

CLOSE = 2e-5  # float32 rounding of sums in another order


def make(network, **settings) -> Session:
    return Session(TINY, network.variables, PropagationConfig(mem_every=3, **settings))


def run(session: Session, video: Video, frames: int = 8) -> list[np.ndarray]:
    session.add(video.hard_masks(0, 1, 2, 3))
    return [r.prob for r in session.propagate(video.frames[:frames])]


def test_the_network_decides_about_its_memory(tiny_network):
    chosen = {"mem_every": 2, "max_mem_frames": 3, "stagger": 1, "top_k": 9}
    network = dataclasses.replace(TINY, **chosen)
    settings = Session(network, tiny_network.variables).propagation
    assert settings == PropagationConfig(**chosen)


@pytest.mark.slow
@pytest.mark.parametrize("chunk_size", [1, 2, 3])
def test_chunks_change_nothing(tiny_network, video, chunk_size):
    whole = run(make(tiny_network), video)
    chunked = run(make(tiny_network, chunk_size=chunk_size), video)
    np.testing.assert_allclose(whole, chunked, atol=CLOSE)


@pytest.mark.slow
def test_empty_slots_change_nothing(tiny_network, video):
    """Objects in other slots, with empty ones between them, get the same masks."""
    plain = run(make(tiny_network), video)
    session = make(tiny_network)
    session.add(video.hard_masks(0, 1, 2, 3) | {9: video.masks[0] == 0, 8: video.masks[0] == 2})
    session.step(video.frames[0])
    session.delete([1, 2, 3, 9, 8])
    session._next_frame = 0
    session.add(video.hard_masks(0, 1, 2, 3))
    padded = [r.prob for r in session.propagate(video.frames[:8])]
    assert session.state.bucket_of.shape[0] > 3
    np.testing.assert_allclose(plain, padded, atol=CLOSE)


def test_probabilities_sum_to_one_and_win_the_index_mask(tiny_network, video):
    session = make(tiny_network)
    session.add(video.masks[0].astype(np.int32) * 1000)
    result = list(session.propagate(video.frames[:3]))[-1]
    assert result.prob.shape == (4, 64, 96) and result.prob.dtype == np.float32
    np.testing.assert_allclose(result.prob.sum(0), 1, atol=1e-5)
    ids = np.array([0, 1000, 2000, 3000])
    np.testing.assert_array_equal(result.index_mask(), ids[result.prob.argmax(0)])
    assert result.index_mask().dtype == np.uint16


def test_confidence_is_the_mean_probability_where_an_object_wins(tiny_network, video):
    session = make(tiny_network)
    session.add({7: video.masks[0] == 1, 2: np.zeros((64, 96), bool)})
    result = session.step(video.frames[0])
    labels = result.index_mask()
    assert set(result.confidence) == {7, 2}
    assert result.confidence[7] == pytest.approx(result.prob[1][labels == 7].mean(), abs=1e-5)
    assert result.confidence[2] == 0


def test_ids_are_kept_in_the_order_they_were_added(tiny_network, video):
    session = make(tiny_network)
    session.add(video.hard_masks(0, 3))
    session.step(video.frames[0])
    session.add(video.hard_masks(1, 1, 2), frame_index=1)
    assert session.step(video.frames[1]).object_ids == (3, 1, 2)
    session.delete([1])
    assert session.step(video.frames[2]).object_ids == (3, 2)
    session.add(video.hard_masks(3, 1))
    assert session.step(video.frames[3]).object_ids == (3, 2, 1)


def test_a_deleted_object_leaves_no_trace(tiny_network, video):
    """An id given again after deletion is a new object, like in a session that starts there."""
    session = make(tiny_network)
    session.add(video.hard_masks(0, 1))
    for t in range(5):
        session.step(video.frames[t])
    session.delete([1])
    assert session.step(video.frames[5]).prob.shape[0] == 1
    session.add(video.hard_masks(6, 2))
    again = [session.step(frame).prob for frame in video.frames[6:12]]
    fresh = make(tiny_network)
    fresh.add(video.hard_masks(6, 2))
    expected = [fresh.step(frame).prob for frame in video.frames[6:12]]
    np.testing.assert_allclose(again, expected, atol=CLOSE)


def test_a_given_mask_is_what_comes_back(tiny_network, video):
    session = make(tiny_network)
    session.add(video.masks[0].astype(np.int32))
    session.step(video.frames[0])
    session.add(video.hard_masks(4, 2), frame_index=4)
    for t in range(1, 4):
        session.step(video.frames[t])
    corrected = session.step(video.frames[4])
    inside = video.masks[4] == 2
    assert (corrected.index_mask()[inside] == 2).all()
    assert not (corrected.index_mask()[~inside] == 2).any()


def test_frames_before_the_first_mask_are_background(tiny_network, video):
    session = make(tiny_network)
    session.add(video.hard_masks(2, 1), frame_index=2)
    first = session.step(video.frames[0])
    assert first.object_ids == () and first.prob.shape == (1, 64, 96) and (first.prob == 1).all()
    assert not first.index_mask().any()
    session.step(video.frames[1])
    assert session.step(video.frames[2]).object_ids == (1,)


@pytest.mark.slow
def test_permanent_frames_stay(tiny_network, video):
    """Permanent frames are kept besides the temporary ones, however many frames follow."""
    session = make(tiny_network, max_mem_frames=2)
    session.add(video.hard_masks(0, 1, 2))
    for t in range(12):
        session.step(video.frames[t], permanent=t in (4, 5, 6))
    counts = session.state.memory
    assert int(counts.permanent_frames[0]) == 4
    assert counts.layout.permanent >= 4


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "long_term"), [("float32", True), ("bfloat16", False)])
def test_saved_session_continues_bit_for_bit(tiny_network, video, tmp_path, dtype, long_term):
    options = {"long_term": long_term, "lt_max_frames": 3, "lt_min_frames": 2}
    config = PropagationConfig(mem_every=2, **options)

    def new() -> Session:
        return Session(TINY, tiny_network.variables, config, dtype=dtype)

    session = new()
    session.add(video.hard_masks(0, 1, 2, 3))
    for t in range(5):
        session.step(video.frames[t])
    session.add(video.hard_masks(7, 2) | {9: video.masks[7] == 0}, frame_index=7)
    session.save(tmp_path / "state")
    loaded = new()
    loaded.load(tmp_path / "state")
    loaded.add(video.hard_masks(7, 2) | {9: video.masks[7] == 0}, frame_index=7)
    for t in range(5, 12):
        a, b = session.step(video.frames[t]), loaded.step(video.frames[t])
        assert a.object_ids == b.object_ids and a.frame_index == b.frame_index == t
        np.testing.assert_array_equal(a.prob, b.prob)


@pytest.mark.slow
def test_a_session_saved_by_an_earlier_version_continues(wide_network, video, goldens):
    """Seven frames, a third object from frame 3 on; long-term memory has been condensed."""
    config = PropagationConfig(
        mem_every=2, long_term=True, lt_max_frames=3, lt_min_frames=2, lt_prototypes=16,
        lt_max_tokens=64, lt_buffer_tokens=16,
    )  # fmt: skip
    loaded, session = (Session(WIDE, wide_network.variables, config) for _ in range(2))
    loaded.load(goldens / "session_before.safetensors")
    session.add(video.hard_masks(0, 1, 2))
    session.add(video.hard_masks(3, 3), frame_index=3)
    for frame in video.frames[:7]:
        session.step(frame)
    for frame in video.frames[7:10]:
        found, expected = loaded.step(frame), session.step(frame)
        assert found.object_ids == expected.object_ids == (1, 2, 3)
        np.testing.assert_allclose(found.prob, expected.prob, atol=CLOSE)


def test_a_damaged_or_foreign_file_is_refused(tiny_network, video, tmp_path):
    session = make(tiny_network)
    session.add(video.hard_masks(0, 1))
    session.step(video.frames[0])
    path = tmp_path / "state"
    session.save(path)
    with pytest.raises(InputError, match="propagation"):
        make(tiny_network, top_k=5).load(path)
    with pytest.raises(InputError, match=r"another propagation setting: top_k was \d+, now 5;"):
        make(tiny_network, top_k=5).load(path)
    data = path.read_bytes()
    for size in (0, 5, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(InputError, match="state"):
            make(tiny_network).load(path)
    with pytest.raises(InputError, match="nowhere"):
        make(tiny_network).load(tmp_path / "nowhere")


BAD_MASKS = {
    "no object": np.zeros((64, 96), np.uint8),
    "positive": {-1: np.ones((64, 96), bool)},
    "integers": np.zeros((64, 96), np.float32),
    "height, width": {1: np.zeros((2, 64, 96), np.float32)},
    "outside": {1: np.full((64, 96), 1.5, np.float32)},
}


@pytest.mark.parametrize("message", BAD_MASKS)
def test_bad_masks_are_refused(tiny_network, message):
    with pytest.raises(InputError, match=message):
        make(tiny_network).add(BAD_MASKS[message])


def test_other_bad_input_is_refused_and_changes_nothing(tiny_network, video):
    session = make(tiny_network)
    session.add(video.hard_masks(0, 1))
    session.step(video.frames[0])
    with pytest.raises(InputError, match="processed already"):
        session.add(video.hard_masks(0, 1), frame_index=0)
    with pytest.raises(InputError, match="object 5 is not known"):
        session.delete([5])
    with pytest.raises(InputError, match="90x60"):
        session.step(np.zeros((60, 90, 3), np.uint8))
    with pytest.raises(InputError, match="uint8"):
        session.step(video.frames[1].astype(np.float32))
    with pytest.raises(InputError, match="10x10"):
        session.add({4: np.ones((10, 10), bool)})
        session.step(video.frames[1])
    assert session.object_ids == (1,) and session.frame_index == 1


@pytest.mark.slow
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_sequence_of_events(tiny_network, video, one_slot_size, data):
    """Random adding, correcting and deleting keeps ids, shapes and probabilities in order."""
    long_term = data.draw(st.booleans())
    session = make(
        tiny_network, long_term=long_term, lt_max_frames=3, lt_min_frames=2, max_mem_frames=2
    )
    known: list[int] = []
    for t in range(8):
        if known and data.draw(st.booleans()):
            gone = data.draw(st.lists(st.sampled_from(known), unique=True))
            session.delete(gone)
            known = [i for i in known if i not in gone]
        ids = data.draw(st.lists(st.integers(1, 5), unique=True, max_size=3))
        if ids:
            session.add({i: video.masks[t] == (i % 4) for i in ids})
            known += [i for i in ids if i not in known]
        result = session.step(video.frames[t])
        assert result.object_ids == tuple(known)
        assert np.isfinite(result.prob).all()
        np.testing.assert_allclose(result.prob.sum(0), 1, atol=1e-5)


@pytest.mark.slow
def test_three_hundred_objects(tiny_network, video):
    session = make(tiny_network, chunk_size=32)
    ids = np.arange(64 * 96).reshape(64, 96) % 300 + 1
    session.add(ids)
    results = list(session.propagate(video.frames[:2]))
    assert len(results[-1].object_ids) == 300
    np.testing.assert_array_equal(results[0].index_mask(), ids)


def test_masks_that_wait_survive_save_and_load(tiny_network, video, tmp_path):
    session, again = make(tiny_network), make(tiny_network)
    session.add(video.hard_masks(0, 1))
    session.step(video.frames[0])
    session.add({9: video.masks[3] == 2}, frame_index=3, permanent=True)
    session.save(tmp_path / "s")
    again.load(tmp_path / "s")
    for frame in video.frames[1:4]:
        expected, found = session.step(frame), again.step(frame)
    assert found.object_ids == expected.object_ids == (1, 9)
    np.testing.assert_array_equal(found.prob, expected.prob)


def test_a_mask_of_another_size_is_refused_when_it_is_given(tiny_network, video):
    session = make(tiny_network)
    session.add(video.hard_masks(0, 1))
    session.step(video.frames[0])
    with pytest.raises(InputError, match="48x32 but the frame is 96x64"):
        session.add({1: np.ones((32, 48), bool)})
    assert session.step(video.frames[1]).object_ids == (1,)


def test_a_wrong_first_mask_can_be_withdrawn(tiny_network, video):
    session = make(tiny_network)
    session.add({1: np.ones((32, 48), bool)})
    with pytest.raises(InputError, match="48x32"):
        session.step(video.frames[0])
    session.withdraw(0)
    session.add(video.hard_masks(0, 1))
    assert session.step(video.frames[0]).object_ids == (1,)


def test_deleted_objects_stay_deleted(tiny_network, video):
    session = make(tiny_network)
    session.add(video.hard_masks(0, 1, 2))
    session.step(video.frames[0])
    session.add(video.hard_masks(2, 1), frame_index=2)
    session.add({7: video.masks[2] == 3}, frame_index=2)
    session.delete([1, 1])
    session.delete([7])
    for frame in video.frames[1:4]:
        result = session.step(frame)
        assert result.object_ids == (2,)
        np.testing.assert_allclose(result.prob.sum(0), 1, atol=1e-5)


def test_ids_are_not_rounded_and_booleans_are_object_one(tiny_network, video):
    session = make(tiny_network)
    mask = video.masks[0] == 1
    with pytest.raises(InputError, match="positive integers"):
        session.add({True: mask})
    for id_ in (1.2, "1"):
        with pytest.raises(InputError, match="positive integers"):
            _id(id_)
    assert session.add(mask) == (1,)


def test_a_session_without_objects_is_saved_and_loaded(tiny_network, video, tmp_path):
    session, again = make(tiny_network), make(tiny_network)
    session.step(video.frames[0])
    session.save(tmp_path / "s")
    again.load(tmp_path / "s")
    again.add(video.hard_masks(1, 1))
    assert again.step(video.frames[1]).frame_index == 1


def test_no_changed_bit_of_a_saved_session_passes(tiny_network, video, tmp_path):
    session = make(tiny_network)
    session.add(video.hard_masks(0, 1))
    session.step(video.frames[0])
    session.save(tmp_path / "s")
    data = (tmp_path / "s").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    again = make(tiny_network)
    again.add(video.hard_masks(0, 3))
    again.step(video.frames[0])
    for bit in np.random.default_rng(0).integers(8 * start, 8 * len(data), 20):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << (bit % 8)
        (tmp_path / "broken").write_bytes(broken)
        with pytest.raises(InputError, match="checksum"):
            again.load(tmp_path / "broken")
    assert again.object_ids == (3,)  # a load that fails changes nothing


@pytest.fixture
def ctrl_c():
    """Let Ctrl-C interrupt: background jobs of a shell begin with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupted_step_leaves_the_session_at_a_finished_frame(tiny_network, video):
    session = make(tiny_network)
    session.add(video.hard_masks(0, 1))
    session.step(video.frames[0])
    session.step(video.frames[1])
    for delay in np.linspace(0, 0.02, 12):
        before = session.frame_index
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            session.step(video.frames[2])
            time.sleep(30)  # ended by the signal
        timer.join()
        assert session.frame_index in (before, before + 1)
        assert session.step(video.frames[3]).object_ids == (1,)
