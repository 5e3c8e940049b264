"""Bookkeeping of objects and slots."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from s3_jax.propagation.slots import Slots
from s3_jax.propagation.state import slot_size


def test_slot_sizes_grow_by_at_most_half():
    sizes = [slot_size(n) for n in range(1, 40)]
    assert sizes[:8] == [1, 2, 3, 4, 6, 6, 8, 8]
    assert all(size >= n and size <= max(1.5 * n, n + 1) for n, size in enumerate(sizes, 1))
    assert sizes == sorted(sizes)


EVENTS = st.lists(
    st.tuples(st.sampled_from(["add", "delete", "frame", "permanent"]), st.sets(st.integers(1, 9))),
    max_size=20,
)


@given(EVENTS)
def test_every_object_has_a_slot_of_its_own_and_buckets_are_shared_by_time(events):
    slots, born = Slots(), {}
    for clock, (kind, ids) in enumerate(events):
        if kind == "add" and (new := [i for i in sorted(ids) if i not in slots.ids]):
            bucket = slots.add(new)
            assert bucket not in {b for i, (_, b) in born.items() if i in slots.ids}
            born |= dict.fromkeys(new, (clock, bucket))
        elif kind == "delete":
            slots.delete([i for i in ids if i in slots.ids])
            born = {i: b for i, b in born.items() if i in slots.ids}
        elif slots.ids:
            slots.note_frame(kind == "permanent")
        used = [slots.slot(i) for i in slots.ids]
        assert len(set(used)) == len(used) and max(used, default=0) < slots.capacity.objects
        assert sorted(slots.order()) == list(range(slots.capacity.objects))
        assert list(slots.order()[: len(used)]) == used
        assert slots.mask(slots.ids).sum() == len(used)
        times = {}
        for time, bucket in born.values():
            assert times.setdefault(bucket, time) == time
            assert bucket < slots.capacity.buckets


def test_round_trip_through_json():
    slots = Slots()
    slots.add([5, 300])
    slots.note_frame(True)
    slots.add([7])
    slots.delete([300])
    again = Slots.from_dict(json.loads(json.dumps(slots.to_dict())))
    assert again.ids == slots.ids and again.capacity == slots.capacity
    np.testing.assert_array_equal(again.order(), slots.order())
    assert again.note_frame(True) == slots.note_frame(True)
