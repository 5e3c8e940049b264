"""Videos in lockstep, with stand-in sessions that take their steps one after another."""

import pytest

from s3_jax.benchmarks.datasets import BENCHMARKS
from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.benchmarks.prediction import RunProgress, group_videos
from s3_jax.segmentation.video import SegmentConfig
from tests.benchmarks.benchmark_files import (
    make_davis,
    make_youtube,
    mask,
    numbered,
    write_frames,
    write_masks,
)
from tests.benchmarks.test_prediction import _contents, _results, _run

VIDEOS = {"bear": 5, "bus": 8, "cat": 3, "dog": 6}
SCORES = SegmentConfig(size_of_masks=True, save_scores=True)


class FakeBatch:
    """The sessions of a batch; counts its steps."""

    sizes: list[int] = []  # noqa: RUF012

    def __init__(self, sessions):
        self._sessions = sessions
        self.sizes.append(len(sessions))

    def start(self, images, masks):
        for session, given in zip(self._sessions, masks, strict=True):
            session.add(given)
        return self.step(images)

    def step(self, images):
        return [s.step(i) for s, i in zip(self._sessions, images, strict=True)]


@pytest.fixture
def davis(tmp_path):
    FakeBatch.sizes.clear()
    return make_davis(tmp_path / "davis", VIDEOS)


def _run_batch(data, output, batch=3, **more):
    return _run("davis2017-val", data, output, SCORES, batch=batch, make_batch=FakeBatch, **more)


def _names(groups):
    return sorted(sorted(video.name for video in group) for group in groups)


def test_batches_have_videos_of_one_size_and_similar_length(davis):
    write_frames(davis / "JPEGImages/480p/dog", numbered(6), (60, 96))
    (davis / "JPEGImages/480p/cat/00000.jpg").write_bytes(b"no picture")
    videos = BENCHMARKS["davis2017-val"].list_videos(davis, LayoutConfig())
    assert _names(group_videos(videos, 3)) == [["bear", "bus"], ["cat"], ["dog"]]
    assert _names(group_videos(videos, 1)) == [["bear"], ["bus"], ["cat"], ["dog"]]
    later = BENCHMARKS["davis2017-val"].list_videos(davis, LayoutConfig(rule="first_of_each"))
    assert _names(group_videos(later, 3)) == [["bear"], ["bus"], ["cat"], ["dog"]]


def test_results_are_those_of_one_by_one(davis, tmp_path):
    _run("davis2017-val", davis, tmp_path / "alone", SCORES)
    frames = []
    outcome, videos, folder = _run_batch(
        davis, tmp_path / "out", progress=RunProgress(advanced=lambda: frames.append(1))
    )
    assert sorted(outcome.finished) == sorted(VIDEOS)
    assert FakeBatch.sizes == [3]  # cat, bear, dog; the bus is alone
    assert len(frames) == sum(VIDEOS.values())
    assert _results(tmp_path / "out") == _results(tmp_path / "alone")
    notes = [folder.record(video)["notes"] for video in videos]
    assert sum(n["frames_timed"] for n in notes) == pytest.approx(sum(VIDEOS.values()), abs=0.01)


def test_an_interrupted_batch_starts_over_and_finished_ones_are_left(davis, tmp_path):
    _run_batch(davis, tmp_path / "whole")
    frames = []
    stop = RunProgress(advanced=lambda: frames.append(1), stop=lambda: len(frames) >= 9)
    outcome, *_ = _run_batch(davis, tmp_path / "out", progress=stop)
    assert outcome.finished == []
    _run_batch(davis, tmp_path / "out")
    assert _results(tmp_path / "out") == _results(tmp_path / "whole")
    before = _contents(tmp_path / "out")
    done = []
    _run_batch(davis, tmp_path / "out", progress=RunProgress(found=done.append))
    assert sorted(done) == sorted(VIDEOS.values())
    assert _contents(tmp_path / "out") == before


def test_one_missing_video_is_done_with_its_whole_batch(davis, tmp_path):
    _run_batch(davis, tmp_path / "out")
    before = _results(tmp_path / "out")
    for path in (tmp_path / "out/Annotations/cat").iterdir():
        path.unlink()
    FakeBatch.sizes.clear()
    outcome, *_ = _run_batch(davis, tmp_path / "out")
    assert sorted(outcome.finished) == sorted(VIDEOS)
    assert FakeBatch.sizes == [3]
    assert _results(tmp_path / "out") == before


def test_a_damaged_frame_ends_one_video_of_a_batch(davis, tmp_path):
    (davis / "JPEGImages/480p/dog/00002.jpg").write_bytes(b"no picture")
    outcome, *_ = _run_batch(davis, tmp_path / "out")
    assert sorted(outcome.finished) == ["bear", "bus", "cat"]
    assert "dog/00002.jpg" in outcome.problems["dog"]
    assert len(list((tmp_path / "out/Annotations/dog").iterdir())) == 2
    assert len(list((tmp_path / "out/Annotations/bear").iterdir())) == 5


def test_a_video_that_cannot_start_leaves_the_others_to_be_done_alone(davis, tmp_path, caplog):
    (davis / "Annotations/480p/bear/00000.png").write_bytes(b"no picture")
    outcome, *_ = _run_batch(davis, tmp_path / "out", layout=LayoutConfig(void=None))
    assert sorted(outcome.finished) == ["bus", "cat", "dog"]
    assert list(outcome.problems) == ["bear"]
    assert "one by one" in caplog.text


def test_objects_that_are_too_small_cannot_start_a_batch(davis, tmp_path):
    tiny = mask()
    tiny[0, 0] = 1
    write_masks(davis / "Annotations/480p/cat", {"00000": tiny})
    config = SegmentConfig(8, size_of_masks=True)
    outcome, *_ = _run("davis2017-val", davis, tmp_path / "out", config, batch=3,
                       make_batch=FakeBatch)  # fmt: skip
    assert sorted(outcome.finished) == sorted(VIDEOS)  # the cat alone, with empty masks


def test_videos_with_later_masks_are_done_one_by_one(tmp_path):
    data = make_youtube(tmp_path / "data")
    FakeBatch.sizes.clear()
    outcome, *_ = _run("youtubevos2019-val", data, tmp_path / "out", batch=2, make_batch=FakeBatch)
    assert sorted(outcome.finished) == ["a1", "b2"]
    assert FakeBatch.sizes == []
