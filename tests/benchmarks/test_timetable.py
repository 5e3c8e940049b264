import pytest

from s3_jax.benchmarks.protocols import PROTOCOLS, ObjectMeta
from s3_jax.benchmarks.timetable import Timetable
from s3_jax.errors import InputError

FRAMES = ["00000", "00005", "00010", "00015"]


def scored(protocol: str, meta=None, appear=({1}, {1}, {1, 2}, {1, 2, 3})) -> list[list[int]]:
    """Scored objects frame by frame, where `appear` are the annotated ones."""
    timetable = Timetable(PROTOCOLS[protocol], FRAMES, meta)
    result = []
    for index, ids in enumerate(appear):
        result.append(timetable.scored(index))
        timetable.observe(index, ids)
    return result


def test_first_frame_protocols_leave_out_both_ends_and_later_objects() -> None:
    for protocol in ("davis2017", "mose"):
        assert scored(protocol) == [[], [1], [1], []]


def test_binary_protocol_has_one_object_whatever_is_annotated() -> None:
    assert scored("davis2016", appear=(set(), {1}, set(), {1})) == [[], [1], [1], []]


def test_objects_are_scored_from_the_frame_after_their_first() -> None:
    assert scored("generic") == [[], [1], [1], [1, 2]]
    assert scored("lvos") == [[], [1], [1], []]


def test_frames_of_a_meta_file_decide() -> None:
    meta = {
        1: ObjectMeta(frames=("00000", "00010", "00015")),
        4: ObjectMeta(frames=("00005", "00010")),
    }
    assert scored("youtube_vos", meta) == [[], [], [1, 4], [1]]
    assert Timetable(PROTOCOLS["youtube_vos"], FRAMES, meta).needed() == ["00010", "00015"]


def test_spans_of_a_meta_file_lose_both_ends() -> None:
    meta = {1: ObjectMeta(span=("00000", "00015")), 2: ObjectMeta(span=("00005", "00015"))}
    assert scored("lvos", meta) == [[], [1], [1, 2], []]


@pytest.mark.parametrize(
    ("protocol", "needed"), [("davis2017", FRAMES[1:3]), ("generic", FRAMES[1:])]
)
def test_needed_frames(protocol: str, needed: list[str]) -> None:
    assert Timetable(PROTOCOLS[protocol], FRAMES, None).needed() == needed


def test_meta_frames_without_annotation_are_refused() -> None:
    meta = {1: ObjectMeta(frames=("00000", "00005", "00020", "00025"))}
    with pytest.raises(InputError, match=r"00020, 00025 are not annotated"):
        Timetable(PROTOCOLS["youtube_vos"], FRAMES, meta)


def test_half_a_meta_file_is_refused() -> None:
    meta = {1: ObjectMeta(frames=tuple(FRAMES)), 2: ObjectMeta(category="dog")}
    with pytest.raises(InputError, match="some of the objects only"):
        Timetable(PROTOCOLS["youtube_vos"], FRAMES, meta)
