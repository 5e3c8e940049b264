"""Memory is bounded and nothing is recompiled, however long the video and its history are."""

import gc
from collections.abc import Iterator

import jax
import numpy as np
import psutil
import pytest

from s3_jax.annotation.annotator import Annotator
from s3_jax.annotation.found import Found, FoundInMemory
from s3_jax.annotation.given import Given
from s3_jax.annotation.snapshots import Snapshots
from s3_jax.annotation.spool import Spool
from s3_jax.config import PropagationConfig
from s3_jax.propagation.joining import Quantized
from s3_jax.propagation.session import Session, SessionSnapshot
from s3_jax.propagation.slots import Slots
from tests.propagation.conftest import TINY
from tests.propagation.test_long_video import Lowerings


@pytest.fixture
def lowerings() -> Iterator[Lowerings]:
    jax.clear_caches()
    counter = Lowerings()
    yield counter
    jax.monitoring.unregister_event_duration_listener(counter._note)


def test_corrections_compile_nothing_new(tiny_network, video, lowerings):
    """The corrections include masks of only some objects, new frames, and empty masks."""
    session = Session(TINY, tiny_network.variables, PropagationConfig(mem_every=3))
    annotator = Annotator(session, lambda i: video.frames[i], 12, snapshot_every=2)

    def settle() -> None:
        for span in annotator.due():
            list(annotator.propagate(*span))

    annotator.annotate(0, video.hard_masks(0, 1, 2))
    annotator.annotate(8, video.hard_masks(8, 1))
    settle()
    compiled = lowerings.count
    assert compiled > 0
    annotator.annotate(5, video.hard_masks(5, 1, 2))
    settle()
    annotator.annotate(3, video.hard_masks(3, 2))
    annotator.annotate(10, {1: np.zeros((64, 96), bool)})
    settle()
    annotator.withdraw(5)
    settle()
    assert annotator.due() == [] and lowerings.count == compiled


def snapshot(nbytes: int) -> SessionSnapshot:
    return SessionSnapshot(0, nbytes, None, Slots(), {}, [], None)


def test_snapshots_stay_within_their_memory_and_evenly_spread():
    snapshots = Snapshots(every=25, most_bytes=1000)
    for position in range(0, 3000, 25):
        snapshots.keep(position, snapshot(100))
        assert snapshots.nbytes <= 1000
    gaps = np.diff(snapshots.positions)
    assert snapshots.positions[0] == 0 and snapshots.positions[-1] == 2975
    assert len(gaps) == 9 and gaps.max() <= 4 * 3000 / 10


def test_one_snapshot_stays_even_if_it_is_too_large():
    snapshots = Snapshots(every=25, most_bytes=10)
    for position in (0, 25, 50):
        snapshots.keep(position, snapshot(100))
    assert snapshots.positions == [50]


def test_the_last_snapshot_before_a_position_is_taken():
    snapshots = Snapshots(every=5, most_bytes=1000)
    for position in (0, 5, 10):
        snapshots.keep(position, snapshot(1))
    assert snapshots.before(0) is None
    assert snapshots.before(5)[0] == 0 and snapshots.before(6)[0] == 5
    assert snapshots.before(99)[0] == 10
    snapshots.drop(3, 10)
    assert snapshots.positions == [0, 10]
    snapshots.drop(5, None)
    assert snapshots.positions == [0]


def circles(t: int, size: tuple[int, int] = (480, 854)) -> np.ndarray:
    """Three discs that wander, as ids."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    ids = np.zeros(size, np.uint8)
    for k in range(3):
        y, x = 120 + 100 * k + 40 * np.sin(t / 30 + k), 200 + 200 * k + 90 * np.cos(t / 50)
        ids[(rows - y) ** 2 + (columns - x) ** 2 < (50 + 10 * k) ** 2] = k + 1
    return ids


def test_masks_of_480p_take_a_few_kilobytes_and_come_back():
    found, given = FoundInMemory(), Given()
    for t in range(20):
        ids = circles(t)
        found[t] = Found(t, ids.astype(np.int32), {1: 0.5}, "forward")
        given.put(t, {k: ids == k for k in (1, 2, 3)})
    assert sum(len(p.data) for p in found._packed.values()) < 20 * 8_000
    assert sum(len(m) for p in given._packed.values() for m in p.masks.values()) < 20 * 6_000
    for t in range(20):
        np.testing.assert_array_equal(found[t].ids, circles(t))
        assert found[t].ids.dtype == np.uint8
        np.testing.assert_array_equal(given.masks(t)[2], circles(t) == 2)


def test_ids_of_any_size_come_back():
    found = FoundInMemory()
    for largest in (1, 255, 256, 65535, 65536, 2**24 - 1):
        ids = np.array([[0, largest]])
        found[0] = Found(0, ids, {}, "given")
        np.testing.assert_array_equal(found[0].ids, ids)


def test_probabilities_that_wait_leave_memory(monkeypatch):
    """Probabilities wait between two masks that are far apart."""
    rng = np.random.default_rng(0)
    edges = rng.integers(0, 256, (3, 480, 854)).astype(np.uint8)
    process = psutil.Process()
    with Spool() as spool:
        for t in range(260):
            ids = circles(t)
            prob = np.stack([np.where(ids == k, 255, 0) for k in (1, 2, 3)]).astype(np.uint8)
            prob[:, 200:220] = edges[:, 200:220]  # pixels in doubt, which do not compress
            spool.put(t, Quantized((1, 2, 3), prob))
            if t == 200:  # the 64 MiB are full
                gc.collect()
                before = process.memory_info().rss
        gc.collect()
        assert process.memory_info().rss - before < 24 * 2**20
        other = spool.get(7)
        assert other is not None and other.object_ids == (1, 2, 3)
        np.testing.assert_array_equal(other.prob[0, :200] > 0, circles(7)[:200] == 1)
        assert spool.get(260) is None
