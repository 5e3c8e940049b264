"""Masks that are given in any frame, propagated in both directions, and corrected."""

import numpy as np
import pytest

from s3_jax.annotation.annotator import Annotator
from s3_jax.annotation.found import Found
from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError
from s3_jax.propagation.session import Session
from tests.propagation.conftest import TINY, Video

FRAMES = 12


def make_session(network) -> Session:
    return Session(TINY, network.variables, PropagationConfig(mem_every=3))


class Frames:
    """The frames of a video, and how often each was asked for."""

    def __init__(self, video: Video) -> None:
        self.video, self.asked = video, []

    def __call__(self, index: int) -> np.ndarray:
        self.asked.append(index)
        return self.video.frames[index]


@pytest.fixture
def frames(video) -> Frames:
    return Frames(video)


@pytest.fixture
def annotator(tiny_network, frames) -> Annotator:
    return Annotator(make_session(tiny_network), frames, FRAMES, snapshot_every=2)


def plain(network, video: Video, first: dict, later: dict | None = None, start: int = 0) -> dict:
    """Ids of every frame of a session that is run forwards, with masks for some later frames."""
    session = make_session(network)
    session.add(first)
    found = {}
    for index in range(start, FRAMES):
        if index in (later or {}):
            session.add(later[index])
        found[index] = session.step(video.frames[index]).index_mask()
    return found


def test_forwards_is_what_a_session_finds(tiny_network, video, annotator):
    annotator.annotate(0, video.hard_masks(0, 1, 2))
    found = list(annotator.propagate(0, FRAMES - 1))
    assert [f.index for f in found] == list(range(FRAMES))
    assert [f.origin for f in found] == ["given"] + ["forward"] * (FRAMES - 1)
    expected = plain(tiny_network, video, video.hard_masks(0, 1, 2))
    for f in found:
        np.testing.assert_array_equal(f.ids, expected[f.index])
        np.testing.assert_array_equal(annotator.found(f.index).ids, f.ids)
    assert annotator.due() == []


def test_backwards_is_the_reversed_video(tiny_network, video, annotator):
    annotator.annotate(8, video.hard_masks(8, 1, 2))
    found = {f.index: f for f in annotator.propagate(0, FRAMES - 1)}
    assert sorted(found) == list(range(FRAMES))
    session = make_session(tiny_network)
    session.add(video.hard_masks(8, 1, 2))
    for index in range(8, -1, -1):
        np.testing.assert_array_equal(
            found[index].ids, session.step(video.frames[index]).index_mask()
        )
    assert found[3].origin == "backward" and found[9].origin == "forward"


def test_only_forwards_leaves_what_is_before_the_mask(video, annotator):
    annotator.annotate(8, video.hard_masks(8, 1))
    found = list(annotator.propagate(0, FRAMES - 1, both_directions=False))
    assert [f.index for f in found] == [8, 9, 10, 11]
    assert annotator.due() == [(0, 7)] and annotator.found(3) is None


def test_a_span_between_two_masks_comes_from_both(video, annotator):
    annotator.annotate(2, video.hard_masks(2, 1, 2))
    annotator.annotate(9, video.hard_masks(9, 1, 2))
    found = list(annotator.propagate(0, FRAMES - 1))
    last = {f.index: f.origin for f in found}
    assert [last[i] for i in range(FRAMES)] == (
        ["backward"] * 2 + ["given"] + ["both"] * 6 + ["given"] + ["forward"] * 2
    )
    assert annotator.due() == []


def test_given_masks_are_kept_to_the_pixel(video, annotator):
    """The same holds for an object in a frame where another one is propagated."""
    annotator.annotate(0, video.hard_masks(0, 1))
    annotator.annotate(5, video.hard_masks(5, 2))
    for f in annotator.propagate(0, FRAMES - 1):
        if f.index == 5:
            np.testing.assert_array_equal(f.ids == 2, video.masks[5] == 2)
            assert f.confidence[2] == 1 and f.origin != "given"
    np.testing.assert_array_equal(annotator.found(0).ids == 1, video.masks[0] == 1)
    assert set(annotator.found(3).confidence) == {1, 2}


def test_a_correction_equals_a_session_that_had_it_from_the_start(tiny_network, video, annotator):
    first, later = video.hard_masks(0, 1, 2), video.hard_masks(6, 1, 2)
    annotator.annotate(0, first)
    list(annotator.propagate(0, FRAMES - 1))
    annotator.annotate(6, later)
    list(annotator.propagate(6, FRAMES - 1, both_directions=False))
    expected = plain(tiny_network, video, first, {6: later})
    for index in range(6, FRAMES):
        np.testing.assert_array_equal(annotator.found(index).ids, expected[index])


def test_a_correction_starts_from_the_nearest_snapshot(video, annotator, frames):
    annotator.annotate(0, video.hard_masks(0, 1))
    list(annotator.propagate(0, FRAMES - 1))
    annotator.annotate(9, video.hard_masks(9, 1))
    frames.asked.clear()
    list(annotator.propagate(9, FRAMES - 1, both_directions=False))
    assert frames.asked == [9, 10, 11]  # there is a snapshot after frame 8


def test_a_correction_touches_what_lies_between_its_neighbours(video, annotator):
    for index in (2, 8):
        annotator.annotate(index, video.hard_masks(index, 1))
    list(annotator.propagate(0, FRAMES - 1))
    before = {i: annotator.found(i).ids for i in range(FRAMES)}
    annotator.annotate(5, {1: video.masks[5] == 2})
    assert annotator.due() == [(3, 4), (6, 7)]
    for span in annotator.due():
        list(annotator.propagate(*span))
    assert annotator.due() == []
    for index in (0, 1, 2, 8, 9, 10, 11):
        np.testing.assert_array_equal(annotator.found(index).ids, before[index])
    np.testing.assert_array_equal(annotator.found(5).ids == 1, video.masks[5] == 2)


def test_a_new_object_makes_everything_due(video, annotator):
    annotator.annotate(0, video.hard_masks(0, 1))
    list(annotator.propagate(0, FRAMES - 1))
    annotator.annotate(4, video.hard_masks(4, 3))
    assert annotator.due() == [(0, FRAMES - 1)]
    list(annotator.propagate(0, FRAMES - 1))
    assert all(set(annotator.found(i).confidence) == {1, 3} for i in range(FRAMES))


def test_an_empty_mask_says_that_the_object_is_not_there(video, annotator):
    annotator.annotate(0, video.hard_masks(0, 1, 2))
    annotator.annotate(4, {1: np.zeros_like(video.masks[0], bool)})
    list(annotator.propagate(0, FRAMES - 1))
    assert not (annotator.found(4).ids == 1).any()
    assert annotator.object_ids == (1, 2)


def test_an_object_first_said_to_be_absent_comes_only_from_where_it_is_shown(video, annotator):
    nothing = np.zeros_like(video.masks[0], bool)
    annotator.annotate(2, {1: nothing})
    with pytest.raises(InputError, match="annotate a frame first"):
        annotator.propagate(0, FRAMES - 1)
    annotator.annotate(8, video.hard_masks(8, 1))
    found = {f.index: f for f in annotator.propagate(0, FRAMES - 1)}
    assert [found[i].origin for i in (2, 4, 8, 9)] == ["given", "backward", "given", "forward"]
    assert not found[2].ids.any() and annotator.due() == []


def test_a_stopped_run_goes_on_where_it_was(tiny_network, video, annotator, frames):
    annotator.annotate(0, video.hard_masks(0, 1))
    found = []
    for f in annotator.propagate(0, FRAMES - 1, stop=lambda: len(found) == 6):
        found.append(f.index)
    assert found == list(range(6)) and annotator.due() == [(6, FRAMES - 1)]
    frames.asked.clear()
    list(annotator.propagate(*annotator.due()[0]))
    assert frames.asked == list(range(6, FRAMES))
    expected = plain(tiny_network, video, video.hard_masks(0, 1))
    for index in range(FRAMES):
        np.testing.assert_array_equal(annotator.found(index).ids, expected[index])


def test_a_mask_given_while_it_runs_ends_the_run(video, annotator):
    annotator.annotate(0, video.hard_masks(0, 1))
    seen = []
    for f in annotator.propagate(0, FRAMES - 1):
        seen.append(f.index)
        if f.index == 3:
            annotator.annotate(2, video.hard_masks(2, 1))
    assert seen == [0, 1, 2, 3]
    assert annotator.due() == [(1, 1), (3, FRAMES - 1)]


def test_withdrawing_a_mask_gives_what_was_before(video, annotator):
    annotator.annotate(0, video.hard_masks(0, 1))
    list(annotator.propagate(0, FRAMES - 1))
    before = [annotator.found(i).ids for i in range(FRAMES)]
    annotator.annotate(5, {1: video.masks[5] == 2})
    list(annotator.propagate(0, FRAMES - 1))
    assert any((annotator.found(i).ids != before[i]).any() for i in range(FRAMES))
    annotator.withdraw(5)
    assert annotator.due() == [(1, FRAMES - 1)]
    list(annotator.propagate(0, FRAMES - 1))
    for index in range(FRAMES):
        np.testing.assert_array_equal(annotator.found(index).ids, before[index])


def test_a_deleted_object_is_nowhere(video, annotator):
    annotator.annotate(0, video.hard_masks(0, 1, 2))
    list(annotator.propagate(0, FRAMES - 1))
    annotator.delete(2)
    assert annotator.object_ids == (1,) and set(annotator.annotated) == {0}
    for index in range(FRAMES):
        assert not (annotator.found(index).ids == 2).any()
    found: list[Found] = list(annotator.propagate(6, FRAMES - 1))
    assert all(set(f.confidence) == {1} for f in found)
    with pytest.raises(InputError, match="object 2 is not known"):
        annotator.delete(2)


def test_a_damaged_frame_is_passed_over(tiny_network, video):
    def frame(index: int) -> np.ndarray:
        if index == 4:
            raise InputError("frame 4 is damaged")
        return video.frames[index]

    annotator = Annotator(make_session(tiny_network), frame, FRAMES)
    annotator.annotate(0, video.hard_masks(0, 1))
    found = [f.index for f in annotator.propagate(0, FRAMES - 1)]
    assert found == [0, 1, 2, 3, *range(5, FRAMES)]
    assert annotator.lost == {4}


@pytest.mark.parametrize(
    ("index", "masks", "message"),
    [
        (12, {1: np.ones((64, 96), bool)}, "no frame 12"),
        (-1, {1: np.ones((64, 96), bool)}, "no frame -1"),
        (0, {}, "no mask"),
        (0, {0: np.ones((64, 96), bool)}, "positive"),
        (0, {True: np.ones((64, 96), bool)}, "positive"),
        (0, {1: np.ones((64, 96), np.uint8)}, "bool array"),
        (0, {1: np.ones((64, 90), bool)}, "frame's size"),
    ],
)
def test_masks_that_cannot_be_are_refused(annotator, index, masks, message):
    with pytest.raises(InputError, match=message):
        annotator.annotate(index, masks)
    assert annotator.annotated == {}


def test_propagation_needs_a_mask_and_a_span_of_the_video(video, annotator):
    with pytest.raises(InputError, match="annotate a frame first"):
        annotator.propagate(0, 3)
    annotator.annotate(0, video.hard_masks(0, 1))
    with pytest.raises(InputError, match="not a span"):
        annotator.propagate(3, FRAMES)
