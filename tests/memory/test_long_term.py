"""A memory over whole videos, against the plain implementation and the recorded token counts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3_jax.memory import long_term, state
from tests.memory.numpy_memory import Settings
from tests.memory.videos import TRACES, Frame, Video, assert_same_content, assert_same_readout
from tests.support.memory_sizes import memory_sizes

FIFO = Settings(max_frames=4, top_k=6)
LONG_TERM = Settings(max_frames=4, top_k=6, long_term=True, min_frames=2, prototypes=3,
                     max_tokens=11, buffer_tokens=2)  # fmt: skip
SETTINGS = {
    "fifo": FIFO,
    "only permanent": Settings(max_frames=1, top_k=6),
    "long term": LONG_TERM,
    # Everything becomes a prototype, nothing temporary stays, an overflow drops all there is.
    "all condensed": Settings(3, 40, True, min_frames=1, prototypes=20, max_tokens=21,
                              buffer_tokens=1),
}  # fmt: skip
FRAMES = st.lists(
    st.builds(
        Frame,
        read=st.booleans(),
        new_objects=st.sampled_from([0, 0, 0, 1, 2]),
        delete=st.sampled_from([None] * 7 + [0, 1, 2]),
        write=st.sampled_from([True, True, False]),
        permanent=st.sampled_from([False] * 5 + [True]),
    ),
    min_size=1,
    max_size=25,
)


@pytest.mark.parametrize("name", SETTINGS)
@settings(max_examples=25, derandomize=True)
@given(frames=FRAMES, seed=st.integers(0, 1000))
def test_memory_holds_and_reads_what_the_plain_one_does(name, frames, seed):
    video = Video(SETTINGS[name], seed, batch=2 if name == "long term" else 1)
    video.run(Frame(read=False, new_objects=2))
    for frame in frames:
        video.run(frame)
        if frame.read:
            assert_same_readout(video)
    assert_same_content(video)


def test_long_video():
    """Many consolidations and overflows, one bucket beginning while another is full."""
    video = Video(LONG_TERM, seed=1)
    for t in range(60):
        video.run(Frame(new_objects=int(t in (0, 5)), delete=0 if t == 40 else None))
        assert_same_readout(video)
        assert_same_content(video)


def test_slots_without_use_change_nothing():
    """More bucket, object and permanent slots than needed give the same numbers."""
    tight = Video(LONG_TERM, seed=2, buckets=1, objects=2, permanent=2)
    roomy = Video(LONG_TERM, seed=2)
    for t in range(20):
        frame = Frame(new_objects=2 if t == 0 else 0, permanent=t == 6)
        tight.run(frame)
        roomy.run(frame)
        np.testing.assert_allclose(tight.readout, roomy.readout[:, :2], atol=1e-6)
        assert not roomy.readout[:, 2:].any()
    sizes = np.asarray(memory_sizes(roomy.memory))
    assert sizes[:1].tolist() == np.asarray(memory_sizes(tight.memory)).tolist()
    assert not sizes[1:].any()


@pytest.mark.parametrize("options", [{"dense": True}, {"dense": True, "query_chunk": 3},
                                     {"query_chunk": 1}])  # fmt: skip
def test_ways_of_reading_agree(options):
    """Dense or listed, in chunks or not: the same readout and the same usage."""
    video = Video(LONG_TERM, seed=3, batch=2, **options)
    for t in range(20):
        video.run(Frame(new_objects=int(t in (0, 4))))
        assert_same_readout(video)
    assert_same_content(video)


def test_nothing_is_compiled_after_the_first_frames():
    video = Video(LONG_TERM, seed=4)
    video.run(Frame(new_objects=2))
    video.run(Frame())
    traces = TRACES.copy()
    for t in range(100):
        video.run(Frame(new_objects=int(t % 9 == 3), delete=t if t % 9 == 7 else None,
                        permanent=t in (20, 30)))  # fmt: skip
    assert traces == TRACES


@pytest.mark.parametrize("name, max_frames, objects", [
    ("fifo", 4, {0: 3}), ("new_objects", 4, {0: 1, 6: 1, 11: 1}), ("force_permanent", 3, {0: 3}),
])  # fmt: skip
def test_token_counts_of_recorded_videos(goldens, name, max_frames, objects):
    mem_every = 3 if name == "fifo" else 2
    permanent = {9} if name == "force_permanent" else set()
    _follow_recording(goldens, name, Settings(max_frames, 30), mem_every, objects, permanent)


@pytest.mark.parametrize("name, objects, permanent", [
    ("long_term", {0: 3}, set()), ("long_term_flip", {0: 3}, set()),
    ("new_objects_long_term", {0: 1, 6: 1}, set()), ("force_permanent_long_term", {0: 3}, {6}),
])  # fmt: skip
def test_token_counts_of_recorded_long_term_videos(goldens, name, objects, permanent):
    recorded = Settings(max_frames=5, top_k=30, long_term=True, min_frames=3, prototypes=16,
                        max_tokens=64, buffer_tokens=16)  # fmt: skip
    memory = _follow_recording(goldens, name, recorded, 1, objects, permanent)
    if permanent:
        return  # stored elsewhere in the recording, so that life differs
    life = np.asarray(memory.life)[:, 0]
    with np.load(goldens / "memory.npz") as golden:
        newest = golden[f"{name}.final.bucket0.long_life"][:, 32:]
        work = golden[f"{name}.final.bucket0.work_life"]
    np.testing.assert_allclose(life[:, 32:48], newest)
    start = memory.layout.temporary_start
    np.testing.assert_allclose(life[:, start : start + work.shape[1]], work)


def _follow_recording(goldens, name, recorded, mem_every, objects, permanent):
    """Run the recorded events and compare the token counts after every frame."""
    with np.load(goldens / "memory.npz") as golden:
        sizes = golden[f"{name}.memory_sizes"]
    video = Video(recorded, seed=5, batch=2 if "flip" in name else 1, frame_tokens=48)
    last = -mem_every
    for t, expected in enumerate(sizes):
        write = t in objects or t in permanent or t - last >= mem_every
        write = write and t < len(sizes) - 1
        last = t if write else last
        frame = Frame(t not in objects or t > 0, objects.get(t, 0), None, write, t in permanent)
        video.run(frame)
        have = np.asarray(memory_sizes(video.memory))
        np.testing.assert_array_equal(have[: len(expected)], np.maximum(expected, 0))
    return video.memory


@pytest.mark.parametrize("arguments, words", [
    ({"min_frames": 0}, "min_frames is 0"),
    ({"min_frames": 4}, "min_frames is 4"),
    ({"num_prototypes": 0}, r"num_prototypes \(0\)"),
    ({"buffer_tokens": 9}, r"buffer_tokens \(9\)"),
])  # fmt: skip
def test_numbers_that_do_not_fit_are_refused(arguments, words):
    memory = state.init(state.MemoryLayout(4, 1, 3, 11), 1, 1, 1, 4, 3)
    good = {"num_prototypes": 3, "min_frames": 2, "buffer_tokens": 2}
    with pytest.raises(ValueError, match=words):
        long_term.consolidate(memory, **(good | arguments), bucket_of=jnp.zeros(1, jnp.int32))


def test_memory_without_long_term_part_cannot_be_consolidated():
    memory = state.init(state.MemoryLayout(4, 1, 3), 1, 1, 1, 4, 3)
    with pytest.raises(ValueError, match="long_term is 0"):
        long_term.consolidate(memory, 3, 2, 2, jnp.zeros(1, jnp.int32))


def test_consolidation_needs_no_second_copy_of_the_memory():
    memory = state.init(state.MemoryLayout(16, 1, 8, 256), 1, 1, 16, 8, 64)
    step = jax.jit(partial(long_term.consolidate, num_prototypes=32, min_frames=4,
                           buffer_tokens=32), donate_argnums=0)  # fmt: skip
    analysis = step.lower(memory, bucket_of=jnp.zeros(16, jnp.int32)).compile().memory_analysis()
    assert analysis is not None
    assert analysis.alias_size_in_bytes >= memory.value.nbytes
    assert analysis.temp_size_in_bytes < memory.value.nbytes / 4
