"""A long video costs as much per frame as a short one: no recompilation, no growth of memory."""

import gc
from collections.abc import Iterator

import jax
import psutil
import pytest

from s3_jax.config import PropagationConfig
from s3_jax.propagation.session import Session
from tests.propagation.conftest import TINY, Video

FRAMES = 2000
SETTLED = 200  # frames after which allocators have seen everything
LOWERING = "/jax/core/compile/jaxpr_to_mlir_module_duration"
ALLOWED_GROWTH = 24 * 2**20  # bytes; allocator noise. A leak of one 64 x 96 frame would be 37 MB.
SETTINGS = {
    "working": PropagationConfig(mem_every=5),
    "long_term": PropagationConfig(
        mem_every=2, long_term=True, lt_max_frames=5, lt_min_frames=3, lt_prototypes=16,
        lt_max_tokens=200, lt_buffer_tokens=32,
    ),
}  # fmt: skip


class Lowerings:
    """Counter of lowered programs, including those already in the compilation cache."""

    def __init__(self) -> None:
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def _note(self, event: str, duration: float, **_: object) -> None:
        self.count += event == LOWERING


@pytest.fixture
def lowerings() -> Iterator[Lowerings]:
    jax.clear_caches()  # of other files, which may have compiled what is counted
    counter = Lowerings()
    yield counter
    jax.monitoring.unregister_event_duration_listener(counter._note)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_two_thousand_frames(tiny_network, lowerings, name):
    video = Video(64, 64, 64, objects=1)
    session = Session(TINY, tiny_network.variables, SETTINGS[name])
    session.add(video.hard_masks(0, 1))
    process = psutil.Process()
    frames = (video.frames[t % 64] for t in range(FRAMES))
    for result in session.propagate(frames):
        assert result.index_mask().shape == (64, 64)
        if result.frame_index == SETTINGS[name].mem_every:
            compiled = lowerings.count
            assert compiled > 0
        if result.frame_index == SETTLED:
            gc.collect()
            settled = process.memory_info().rss
    gc.collect()
    assert result.frame_index == FRAMES - 1
    assert lowerings.count == compiled
    assert process.memory_info().rss - settled < ALLOWED_GROWTH


@pytest.mark.slow
def test_objects_compile_nothing_new_within_their_slots(tiny_network, video, lowerings):
    """Adding, correcting and deleting is free until a slot size is outgrown."""
    session = Session(TINY, tiny_network.variables, PropagationConfig(mem_every=3))

    def cycle(ids: list[int]) -> None:
        start = session.frame_index
        session.add({i: video.masks[0] == i for i in ids})
        for _ in range(4):
            session.step(video.frames[session.frame_index % 16])
        session.add({ids[0]: video.masks[1] == 1}, frame_index=start + 4)
        for _ in range(2):
            session.step(video.frames[session.frame_index % 16])
        session.delete(ids)

    cycle([1, 2, 3])
    before = lowerings.count
    cycle([4, 5, 6])
    cycle([3, 2, 1])
    assert lowerings.count == before
