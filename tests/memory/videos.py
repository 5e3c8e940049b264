"""Random videos that are run through the memory and through `numpy_memory`, slot by slot."""

import collections
import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from s3_jax.memory import long_term, read, state, working
from s3_jax.memory.state import KeyValueMemory, MemoryLayout
from tests.memory.numpy_memory import Bucket, Settings, Tokens, join
from tests.support.memory_sizes import memory_sizes

KEY_DIM, VALUE_DIM = 4, 3


@dataclasses.dataclass(frozen=True)
class Frame:
    """Events of one frame, in this order."""

    read: bool = True
    new_objects: int = 0
    delete: int | None = None  # the nth of the objects present
    write: bool = True
    permanent: bool = False


# Times that each step was traced, which is before every compilation.
TRACES: collections.Counter[str] = collections.Counter()


@partial(jax.jit, static_argnames=("settings", "dense", "query_chunk"))
def read_step(memory, query, bucket_of, settings, dense=False, query_chunk=None):
    TRACES["read"] += 1
    key, selection = query["key"], query["selection"]
    return read.read(memory, key, selection, bucket_of, settings.top_k,
                     dense=dense, query_chunk=query_chunk)  # fmt: skip


@partial(jax.jit, static_argnames="settings")
def write_step(memory, frame, bucket_of, active, permanent, settings):
    TRACES["write"] += 1
    memory = working.write_frame(memory, frame["key"], frame["shrinkage"], frame["selection"],
                                 frame["value"], bucket_of, active, permanent)  # fmt: skip
    if settings.long_term:
        memory = long_term.consolidate(memory, settings.prototypes, settings.min_frames,
                                       settings.buffer_tokens, bucket_of)  # fmt: skip
    return memory


class Video:
    """A video on which both memories are run with the same random frames.

    Objects are numbered as they come; an object and its bucket take the first free slots.
    """

    def __init__(self, settings: Settings, seed: int, *, batch: int = 1, buckets: int = 3,
                 objects: int = 4, permanent: int = 4, frame_tokens: int = 4,
                 **options) -> None:  # fmt: skip
        self.settings, self.batch, self.options = settings, batch, options
        self.random = np.random.default_rng(seed)
        layout = MemoryLayout(frame_tokens, permanent, settings.max_frames - 1, settings.max_tokens)
        self.memory = state.init(layout, batch, buckets, objects, KEY_DIM, VALUE_DIM)
        self.slots: list[int | None] = [None] * objects
        self.buckets: list[list[Bucket] | None] = [None] * buckets
        self.next_object = 0
        self.readout = np.zeros(())
        self.read_slots: list[int | None] = []
        self.expected: list[dict[int, np.ndarray]] = []

    @property
    def bucket_of(self) -> jax.Array:
        found = [-1] * len(self.slots)
        for slot, name in enumerate(self.slots):
            for index, bucket in enumerate(self.buckets):
                if name is not None and bucket is not None and name in bucket[0].objects:
                    found[slot] = index
        return jnp.array(found, jnp.int32)

    def run(self, frame: Frame) -> None:
        if frame.read:
            self.read()
        if frame.new_objects:
            self.add(frame.new_objects)
        present = [name for name in self.slots if name is not None]
        if frame.delete is not None and present:
            self.delete(present[frame.delete % len(present)])
        if frame.write and any(self.buckets):
            self.write(frame.permanent)

    def read(self) -> None:
        query = self._random_frame()
        readout, self.memory = read_step(
            self.memory, query, self.bucket_of, self.settings, **self.options
        )
        self.readout, self.read_slots = np.asarray(readout), self.slots.copy()
        self.expected = [{} for _ in range(self.batch)]
        for bucket in filter(None, self.buckets):
            for item in range(self.batch):
                key, selection = query["key"][item], query["selection"][item]
                self.expected[item] |= bucket[item].read(key, selection, self.settings.top_k)

    def add(self, count: int) -> None:
        free = [slot for slot, name in enumerate(self.slots) if name is None][:count]
        if None not in self.buckets or not free:
            return
        names = range(self.next_object, self.next_object + len(free))
        self.next_object += len(free)
        for slot, name in zip(free, names, strict=True):
            self.slots[slot] = name
        self.buckets[self.buckets.index(None)] = [Bucket([*names]) for _ in range(self.batch)]

    def delete(self, name: int) -> None:
        self.slots[self.slots.index(name)] = None
        for bucket in filter(None, self.buckets):
            for item in bucket:
                item.objects.discard(name)
        self.buckets = [bucket if bucket and bucket[0].objects else None for bucket in self.buckets]
        empty = jnp.array([bucket is None for bucket in self.buckets])
        self.memory = state.clear_buckets(self.memory, empty)

    def write(self, permanent: bool) -> None:
        frame = self._random_frame()
        kept = max([len(bucket[0].permanent) for bucket in self.buckets if bucket], default=0)
        permanent = permanent and kept < self.memory.layout.permanent
        active = jnp.array([bucket is not None for bucket in self.buckets])
        self.memory = write_step(
            self.memory, frame, self.bucket_of, active, jnp.array(permanent), self.settings
        )
        for bucket in filter(None, self.buckets):
            for item in range(self.batch):
                value = {name: frame["value"][item, self.slots.index(name)]
                         for name in bucket[item].objects}  # fmt: skip
                key, shrinkage, selection = (
                    frame[part][item] for part in ("key", "shrinkage", "selection")
                )
                tokens = Tokens.new(key, shrinkage, selection, value)
                bucket[item].write(tokens, permanent, self.settings)

    def _random_frame(self) -> dict[str, np.ndarray]:
        """A frame, the same for videos that differ in their number of object slots only."""
        b, n = self.batch, self.memory.layout.tokens_per_frame
        frame = {
            "key": self.random.normal(size=(b, n, KEY_DIM)),
            "shrinkage": 1 + self.random.random(size=(b, n)),
            "selection": self.random.random(size=(b, n, KEY_DIM)),
        }
        seed = int(self.random.integers(1 << 30))
        value = [np.random.default_rng([seed, slot]).normal(size=(b, n, VALUE_DIM))
                 for slot in range(len(self.slots))]  # fmt: skip
        frame["value"] = np.stack(value, axis=1)
        return {name: array.astype(np.float32) for name, array in frame.items()}


def assert_same_readout(video: Video, tolerance: float = 2e-5) -> None:
    """The last readout of every object slot is as expected, and zero for empty ones."""
    for item, expected in enumerate(video.expected):
        for slot, name in enumerate(video.read_slots):
            nothing = np.zeros_like(video.readout[item, slot])
            want = nothing if name is None else expected.get(name, nothing)
            np.testing.assert_allclose(video.readout[item, slot], want, atol=tolerance)


def assert_same_content(video: Video) -> None:
    """Every bucket holds the same tokens in the same order, with the same usage."""
    sizes = np.asarray(memory_sizes(video.memory))
    for index, bucket in enumerate(video.buckets):
        if bucket is None:
            assert sizes[index].tolist() == [0, 0, 0]
            continue
        for item in range(video.batch):
            assert sizes[index].tolist() == bucket[item].sizes()
            _assert_bucket(video, bucket[item], index, item)


def _assert_bucket(video: Video, bucket: Bucket, index: int, item: int) -> None:
    memory = video.memory

    def check(window: np.ndarray, parts: list[Tokens], counted: bool = True) -> None:
        assert len(window) == sum(len(part.key) for part in parts)
        if parts:
            tokens = join(parts)
            _assert_tokens(video, tokens, index, item, window, counted)
            _assert_values(video, tokens, bucket.objects, item, window)

    check(np.arange(int(memory.long_term_tokens[index])), bucket.long_term)
    start, size = memory.layout.permanent_start, memory.layout.tokens_per_frame
    for i, frame in enumerate(bucket.permanent):
        window = start + i * size + np.arange(size)
        check(window, [frame], counted=False)
    slots = _temporary_slots(memory, index)
    assert len(slots) == len(bucket.temporary)
    for slot, frame in zip(slots, bucket.temporary, strict=True):
        window = memory.layout.temporary_start + slot * size + np.arange(size)
        check(window, [frame])


def _temporary_slots(memory: KeyValueMemory, index: int) -> list[int]:
    """Slots of temporary frames, oldest first."""
    written, capacity = int(memory.temporary_frames[index]), memory.layout.temporary
    return [i % capacity for i in range(max(0, written - capacity), written)]


def _assert_tokens(
    video: Video, tokens: Tokens, index: int, item: int, window: np.ndarray, counted: bool
) -> None:
    names = ["key", "shrinkage"]
    if video.settings.long_term and counted:
        names += ["selection", "usage", "life"]
    for name in names:
        have = np.asarray(getattr(video.memory, name))[item, index][window]
        want = getattr(tokens, name)
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5, err_msg=name)


def _assert_values(
    video: Video, tokens: Tokens, objects: set[int], item: int, window: np.ndarray
) -> None:
    for name in objects:
        have = np.asarray(video.memory.value)[item, video.slots.index(name)][window]
        np.testing.assert_allclose(have, tokens.value[name], rtol=1e-4, atol=1e-5)
