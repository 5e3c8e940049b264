"""Runs over many videos with a stand-in session, whose results are known in advance."""

import contextlib
import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from s3_jax.benchmarks.datasets import BENCHMARKS
from s3_jax.benchmarks.layouts.config import LayoutConfig
from s3_jax.benchmarks.prediction import (
    PredictionFolder,
    RunProgress,
    group_videos,
    predict,
    share_out,
)
from s3_jax.errors import InputError
from s3_jax.media.mask_files import read_mask
from s3_jax.segmentation import video as segmentation
from s3_jax.segmentation.video import SegmentConfig
from tests.benchmarks.benchmark_files import make_burst, make_davis, make_youtube, write_frames
from tests.tools.fake_session import FakeSession

VIDEOS = {"bear": 5, "bus": 8, "cat": 3}
OPTIONS = SegmentConfig(size_of_masks=True)


@contextlib.contextmanager
def workplace():
    yield FakeSession


def _run(name, data, output, options=OPTIONS, workplaces=(workplace,), layout=None, **more):
    videos = BENCHMARKS[name].list_videos(data, layout or LayoutConfig())
    folder = PredictionFolder(output, {"name": name}, more.pop("overwrite", False))
    groups = group_videos(videos, more.pop("batch", 1))
    return predict(groups, folder, options, workplaces, **more), videos, folder


def _contents(folder: Path) -> dict[str, bytes]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def _results(output: Path) -> dict[str, bytes]:
    return {k: v for k, v in _contents(output).items() if not k.startswith("progress")}


@pytest.fixture
def davis(tmp_path):
    return make_davis(tmp_path / "davis", VIDEOS)


def test_every_frame_of_every_video(davis, tmp_path):
    seen = []
    progress = RunProgress(seen.append, lambda: seen.append("frame"))
    outcome, videos, folder = _run("davis2017-val", davis, tmp_path / "out", progress=progress)
    assert sorted(outcome.finished) == sorted(VIDEOS)
    assert not outcome.problems
    assert seen.count("frame") == sum(VIDEOS.values())
    for name, count in VIDEOS.items():
        masks = sorted((tmp_path / "out/Annotations" / name).iterdir())
        assert [p.name for p in masks] == [f"{i:05d}.png" for i in range(count)]
        first = read_mask(davis / "Annotations/480p" / name / "00000.png").ids
        assert np.array_equal(read_mask(masks[-1]).ids, np.roll(first, count - 1, axis=1))
    notes = folder.record(videos[0])["notes"]
    assert notes["frames_timed"] == 5
    assert notes["size"] == [40, 64]


def test_finished_videos_are_skipped(davis, tmp_path):
    _run("davis2017-val", davis, tmp_path / "out")
    before = _contents(tmp_path / "out")

    @contextlib.contextmanager
    def nothing_to_do():
        yield lambda: pytest.fail("no session is needed")

    found = []
    progress = RunProgress(found.append, lambda: pytest.fail("nothing is segmented"))
    outcome, *_ = _run("davis2017-val", davis, tmp_path / "out", workplaces=[nothing_to_do],
                       progress=progress)  # fmt: skip
    assert (sorted(outcome.finished), sorted(found)) == (sorted(VIDEOS), sorted(VIDEOS.values()))
    assert _contents(tmp_path / "out") == before


@pytest.mark.parametrize("stop_after", [1, 5, 8, 9, 15])
def test_stopped_runs_continue_with_equal_results(davis, tmp_path, stop_after):
    options = SegmentConfig(size_of_masks=True, save_scores=True)
    _run("davis2017-val", davis, tmp_path / "whole", options)
    frames = []
    progress = RunProgress(
        advanced=lambda: frames.append(1), stop=lambda: len(frames) >= stop_after
    )
    outcome, *_ = _run("davis2017-val", davis, tmp_path / "out", options, progress=progress)
    assert len(outcome.finished) == sum(stop_after >= done for done in (8, 13, 16))
    outcome, *_ = _run("davis2017-val", davis, tmp_path / "out", options,
                       progress=RunProgress(advanced=lambda: frames.append(1)))  # fmt: skip
    assert sorted(outcome.finished) == sorted(VIDEOS)
    assert len(frames) == sum(VIDEOS.values())  # nothing is computed twice
    assert _results(tmp_path / "out") == _results(tmp_path / "whole")


def test_what_a_killed_run_was_writing_is_removed(davis, tmp_path):
    _run("davis2017-val", davis, tmp_path / "whole")
    frames = []
    progress = RunProgress(advanced=lambda: frames.append(1), stop=lambda: len(frames) >= 10)
    _run("davis2017-val", davis, tmp_path / "out", progress=progress)
    leftovers = ["Annotations/bear/.00002.png.tmp", "progress/bear/resume_000002.state9.partial",
                 "progress/bus/.run.json.tmp"]  # fmt: skip
    for name in leftovers:
        (tmp_path / "out" / name).write_bytes(b"half")
    _run("davis2017-val", davis, tmp_path / "out")
    assert sorted(_contents(tmp_path / "out")) == sorted(_contents(tmp_path / "whole"))
    assert _results(tmp_path / "out") == _results(tmp_path / "whole")


def test_several_workplaces_share_the_videos(davis, tmp_path):
    _run("davis2017-val", davis, tmp_path / "one")
    barrier = threading.Barrier(2, timeout=20)
    used = []

    @contextlib.contextmanager
    def meeting():
        barrier.wait()  # both workplaces are there at the same time
        used.append(threading.current_thread().name)
        yield FakeSession

    outcome, *_ = _run("davis2017-val", davis, tmp_path / "two", workplaces=[meeting, meeting])
    assert sorted(outcome.finished) == sorted(VIDEOS)
    assert len(set(used)) == 2
    assert _results(tmp_path / "two") == _results(tmp_path / "one")


@pytest.mark.parametrize("workplaces", [1, 2])
def test_a_bad_video_does_not_keep_others_from_being_done(davis, tmp_path, workplaces):
    (davis / "JPEGImages/480p/bear/00002.jpg").write_bytes(b"no picture")
    (davis / "Annotations/480p/cat/00000.png").write_bytes(b"no picture")
    outcome, videos, folder = _run(
        "davis2017-val", davis, tmp_path / "out", workplaces=[workplace] * workplaces,
        layout=LayoutConfig(void=None),
    )  # fmt: skip
    assert outcome.finished == ["bus"]
    assert "bear/00002.jpg" in outcome.problems["bear"]
    assert "cat/00000.png" in outcome.problems["cat"]
    assert [folder.record(v) is None for v in videos] == [True, False, True]
    assert len(list((tmp_path / "out/Annotations/bear").iterdir())) == 2
    write_frames(davis / "JPEGImages/480p/bear", [f"{i:05d}" for i in range(5)])
    outcome, *_ = _run("davis2017-val", davis, tmp_path / "out", layout=LayoutConfig(void=None))
    assert sorted(outcome.finished) == ["bear", "bus"]


@pytest.mark.parametrize("workplaces", [1, 2])
def test_a_full_disk_stops_everything(davis, tmp_path, monkeypatch, workplaces):
    def full(path, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(segmentation, "write_mask", full)
    with pytest.raises(OSError, match="No space left"):
        _run("davis2017-val", davis, tmp_path / "out", workplaces=[workplace] * workplaces)
    monkeypatch.undo()
    outcome, *_ = _run("davis2017-val", davis, tmp_path / "out")
    assert sorted(outcome.finished) == sorted(VIDEOS)


def test_results_of_other_settings_or_files_are_not_mixed(davis, tmp_path):
    _run("davis2017-val", davis, tmp_path / "out")
    videos = BENCHMARKS["davis2017-val"].list_videos(davis, LayoutConfig())
    other = PredictionFolder(tmp_path / "out", {"name": "other"})
    outcome = predict(group_videos(videos, 1), other, OPTIONS, [workplace])
    assert not outcome.finished
    assert "another name (davis2017-val, now other)" in outcome.problems["bear"]
    assert [other.record(video) for video in videos] == [None] * 3
    again = PredictionFolder(tmp_path / "out", {"name": "other"}, overwrite=True)
    assert len(predict(group_videos(videos, 1), again, OPTIONS, [workplace]).finished) == 3
    write_frames(davis / "JPEGImages/480p/cat", ["00003"])
    outcome = predict(group_videos(videos, 1), other, OPTIONS, [workplace])
    assert list(outcome.problems) == ["cat"]
    assert "another video" in outcome.problems["cat"]


def test_later_objects_and_saved_frames_of_youtube_vos(tmp_path):
    data = make_youtube(tmp_path / "data")
    outcome, *_ = _run("youtubevos2019-val", data, tmp_path / "out")
    assert sorted(outcome.finished) == ["a1", "b2"]
    masks = sorted((tmp_path / "out/Annotations/a1").iterdir())
    assert [(p.stem, read_mask(p).object_ids) for p in masks] == [
        ("00000", (1,)), ("00005", (1, 2)), ("00010", (1, 2)),
    ]  # fmt: skip
    # Frames that are not saved are segmented all the same: objects move at every one.
    columns = [np.flatnonzero((read_mask(p).ids == 1).any(axis=0))[0] for p in masks]
    assert columns == [4, 9, 14]


def test_burst_saves_annotated_frames_in_nested_folders(tmp_path):
    data = make_burst(tmp_path / "data")
    outcome, videos, folder = _run("burst-val", data, tmp_path / "out")
    assert sorted(outcome.finished) == ["BDD/b1c9", "LaSOT/cat_1"]
    masks = sorted((tmp_path / "out/Annotations/LaSOT/cat_1").iterdir())
    assert [(p.stem, read_mask(p).object_ids) for p in masks] == [
        ("frame0001", (3,)), ("frame0003", (3, 7)), ("frame0005", (3, 7)),
    ]  # fmt: skip
    record = json.loads((tmp_path / "out/progress/LaSOT/cat_1/run.json").read_text())
    assert (record["frames"], record["results"]) == (7, 3)
    assert folder.record(videos[0]) == record


def test_results_have_the_size_of_the_masks(davis, tmp_path):
    sizes = []

    class Watched(FakeSession):
        def step(self, image, *, end=False):
            sizes.append(image.shape[:2])
            return super().step(image, end=end)

    @contextlib.contextmanager
    def watched():
        yield Watched

    for name, count in VIDEOS.items():
        frames = [f"{i:05d}" for i in range(count)]
        write_frames(davis / "JPEGImages/Full-Resolution" / name, frames, (120, 192))
    _run("davis2017-val", davis, tmp_path / "out", SegmentConfig(60, size_of_masks=True),
         workplaces=[watched], layout=LayoutConfig(full_resolution=True))  # fmt: skip
    assert set(sizes) == {(60, 96)}
    first, last = (read_mask(tmp_path / f"out/Annotations/bus/{n}.png") for n in ("00000", "00007"))
    assert first.ids.shape == last.ids.shape == (40, 64)
    given = read_mask(davis / "Annotations/480p/bus/00000.png").ids
    assert np.mean(first.ids != given) < 0.02
    assert last.object_ids == (1, 2)


def test_masks_of_another_shape_are_refused(davis, tmp_path):
    frames = [f"{i:05d}" for i in range(VIDEOS["cat"])]
    write_frames(davis / "JPEGImages/480p/cat", frames, (60, 64))
    outcome, *_ = _run("davis2017-val", davis, tmp_path / "out")
    assert list(outcome.problems) == ["cat"]
    assert "is 64x40 but the frames of" in outcome.problems["cat"]


def test_shares_are_disjoint_complete_and_even(davis):
    videos = BENCHMARKS["davis2017-val"].list_videos(davis, LayoutConfig())
    shares = [[v.name for v in share_out(videos, i, 2)] for i in range(2)]
    assert shares == [["bus"], ["bear", "cat"]]
    assert [v.name for v in share_out(videos, 0, 1)] == [v.name for v in videos]
    assert [len(share_out(videos, i, 5)) for i in range(5)] == [1, 1, 1, 0, 0]


def test_a_record_that_is_damaged_is_told(davis, tmp_path):
    _run("davis2017-val", davis, tmp_path / "out")
    (tmp_path / "out/progress/cat/run.json").write_text("{")
    outcome, videos, folder = _run("davis2017-val", davis, tmp_path / "out")
    assert folder.record(videos[2]) is None
    assert "run.json is damaged" in outcome.problems["cat"]
    with pytest.raises(InputError, match="is damaged"):
        folder.open_video(videos[2])
