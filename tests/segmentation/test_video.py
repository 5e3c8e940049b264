"""Segmentation with a stand-in session, whose results are known in advance."""

import errno
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3_jax.errors import InputError
from s3_jax.media.mask_files import MaskEncoding, MaskFiles, read_mask
from s3_jax.media.palette import voc_palette
from s3_jax.media.video_files import open_video
from s3_jax.media.writers import write_mask
from s3_jax.segmentation import video as segmentation
from s3_jax.segmentation.run_folder import RunFolder
from s3_jax.segmentation.video import Progress, SegmentConfig, render_overlay, segment
from tests.media.videos import moving_pictures
from tests.tools.fake_session import FakeSession

PALETTE = MaskEncoding("palette", voc_palette().tobytes())
HEIGHT, WIDTH, COUNT = 40, 60, 10


@pytest.fixture
def video(tmp_path: Path) -> Path:
    (tmp_path / "frames").mkdir()
    for i, picture in enumerate(moving_pictures(COUNT, HEIGHT, WIDTH)):
        Image.fromarray(picture).save(tmp_path / "frames" / f"{i:05d}.png")
    return tmp_path / "frames"


def _box(object_id: int, left: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    ids = np.zeros((height, width), np.uint8)
    ids[10:30, left : left + 10] = object_id
    return ids


def _masks(folder: Path, masks: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    for stem, ids in masks.items():
        write_mask(folder / f"{stem}.png", ids, PALETTE)
    return folder


def _segment(video, masks, output, config=SegmentConfig(), session=None, **more):  # noqa: B008
    source = open_video(video)
    folder = RunFolder(output, {"options": str(config)})
    session = session or FakeSession()
    files = MaskFiles(masks, source.frame_names)
    done, problem = segment(session, source, files, folder, config, **more)
    return session, folder, done, problem


def _written(folder: RunFolder) -> dict[str, np.ndarray]:
    return {path.stem: read_mask(path).ids for path in sorted(folder.masks.glob("*.png"))}


def _contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*.*") if p.is_file()}


def test_every_frame_gets_its_mask(video, tmp_path):
    masks = _masks(tmp_path / "m", {"00000": _box(1, 5) + _box(9, 30)})
    session, folder, done, problem = _segment(video, masks / "00000.png", tmp_path / "out")
    assert (done, problem) == (COUNT, None)
    assert session.ends == [False] * (COUNT - 1) + [True]
    written = _written(folder)
    assert list(written) == [f"{i:05d}" for i in range(COUNT)]
    for i, ids in enumerate(written.values()):
        assert np.array_equal(ids, np.roll(_box(1, 5) + _box(9, 30), i, axis=1))
    assert (folder.masks / "00000.png").read_bytes() == (masks / "00000.png").read_bytes()


def test_only_the_first_mask_of_each_object_is_used_by_default(video, tmp_path):
    given = {"00000": _box(1, 5), "00003": _box(1, 40) + _box(2, 20), "00004": _box(2, 0)}
    masks = _masks(tmp_path / "m", given)
    written = _written(_segment(video, masks, tmp_path / "first")[1])
    expected = np.roll(_box(1, 5), 3, axis=1)
    expected[_box(2, 20) > 0] = 2
    assert np.array_equal(written["00003"], expected)
    assert np.array_equal(written["00004"], np.roll(expected, 1, axis=1))
    config = SegmentConfig(all_masks=True)
    written = _written(_segment(video, masks, tmp_path / "all", config)[1])
    assert (written["00003"][_box(1, 40) > 0] == 1).all()
    assert (written["00004"][_box(2, 0) > 0] == 2).all()


def test_frames_before_the_first_object_are_background(video, tmp_path):
    masks = _masks(tmp_path / "m", {"00000": _box(0, 0), "00004": _box(3, 5)})
    config = SegmentConfig(save_scores=True)
    session, folder, done, _ = _segment(video, masks, tmp_path / "out", config)
    written = _written(folder)
    assert done == COUNT
    assert not any(written[f"{i:05d}"].any() for i in range(4))
    assert np.array_equal(written["00004"], _box(3, 5))
    assert len(session.sizes) == COUNT - 4
    with np.load(folder.scores / "00003.npz") as scores:
        assert scores["prob"].shape == (1, HEIGHT, WIDTH)
        assert (scores["prob"] == 1).all()
        assert scores["ids"].shape == (0,)


def test_shrunk_frames_give_results_of_the_original_size(video, tmp_path):
    masks = _masks(tmp_path / "m", {"00000": _box(7, 6)})
    config = SegmentConfig(short_side=20, save_scores=True)
    session, folder, _, _ = _segment(video, masks, tmp_path / "out", config)
    assert set(session.sizes) == {(20, 30, 3)}
    first = _written(folder)["00000"]
    assert first.shape == (HEIGHT, WIDTH)
    assert np.array_equal(first, _box(7, 6))  # the box lies on even coordinates
    with np.load(folder.scores / "00000.npz") as scores:
        assert scores["prob"].shape == (2, HEIGHT, WIDTH)
        assert scores["prob"].dtype == np.float32
        assert scores["ids"].tolist() == [7]
        assert len(np.unique(scores["prob"])) > 2  # resized before the argmax, not after it


def test_objects_lost_by_shrinking_are_reported(video, tmp_path, caplog):
    ids = _box(1, 6)
    ids[0, 0] = 2
    masks = _masks(tmp_path / "m", {"00000": ids})
    session, *_ = _segment(video, masks, tmp_path / "out", SegmentConfig(short_side=8))
    assert session.object_ids == (1,)
    assert "00000.png: too small to be seen at 12x8, so not segmented: object 2" in caplog.text


def test_mask_of_another_size_names_both(video, tmp_path):
    given = {"00000": _box(1, 5), "00005": _box(2, 5, 40, 50)}
    masks = _masks(tmp_path / "m", given)
    _, folder, done, problem = _segment(video, masks, tmp_path / "out")
    assert done == 5
    assert "00005.png is 50x40 but the frames of" in str(problem)
    assert "are 60x40" in str(problem)
    assert len(_written(folder)) == 5


def test_damaged_frame_keeps_what_is_done_and_continues_after_repair(video, tmp_path):
    masks = _masks(tmp_path / "m", {"00000": _box(1, 5)})
    whole = _segment(video, masks, tmp_path / "whole")[1]
    good = (video / "00006.png").read_bytes()
    (video / "00006.png").write_bytes(good[:100])
    _, folder, done, problem = _segment(video, masks, tmp_path / "out")
    assert done == 6
    assert str(video / "00006.png") in str(problem)
    assert list(_written(folder)) == [f"{i:05d}" for i in range(6)]
    (video / "00006.png").write_bytes(good)
    session, folder, done, problem = _segment(video, masks, tmp_path / "out")
    assert (done, problem) == (COUNT, None)
    assert len(session.sizes) == COUNT - 6  # nothing is computed twice
    assert _contents(folder.masks) == _contents(whole.masks)


@pytest.mark.parametrize("stop_after", [1, 2, 5, 9])
def test_interrupted_runs_continue_with_equal_results(video, tmp_path, stop_after):
    given = {"00000": _box(1, 5), "00003": _box(2, 20), "00007": _box(2, 30)}
    masks = _masks(tmp_path / "m", given)
    config = SegmentConfig(save_scores=True)
    whole = _segment(video, masks, tmp_path / "whole", config)[1]
    calls = []
    progress = Progress(advanced=lambda: calls.append(1), stop=lambda: len(calls) == stop_after)
    done = _segment(video, masks, tmp_path / "out", config, progress=progress)[2]
    assert done == stop_after
    started = []
    progress = Progress(started=started.append)
    _, folder, done, _ = _segment(video, masks, tmp_path / "out", config, progress=progress)
    assert started == [stop_after]
    assert done == COUNT
    assert _contents(folder.masks) == _contents(whole.masks)
    assert _contents(folder.scores) == _contents(whole.scores)


def test_a_full_disk_loses_no_finished_frame(video, tmp_path, monkeypatch):
    masks = _masks(tmp_path / "m", {"00000": _box(1, 5)})
    whole = _segment(video, masks, tmp_path / "whole")[1]
    real = segmentation.write_mask

    def full_after_four(path, ids, encoding):
        if path.stem >= "00004":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, ids, encoding)

    monkeypatch.setattr(segmentation, "write_mask", full_after_four)
    with pytest.raises(OSError, match="No space left on device"):
        _segment(video, masks, tmp_path / "out", save_seconds=0.0)
    monkeypatch.undo()
    session, folder, done, _ = _segment(video, masks, tmp_path / "out")
    assert done == COUNT
    assert len(session.sizes) == COUNT - 4
    assert _contents(folder.masks) == _contents(whole.masks)


def test_memory_does_not_grow_with_the_video(video, tmp_path):
    """A slow writer holds the loop back instead of piling results up."""
    alive: list[int] = []

    class Watched(FakeSession):
        made = 0

        def step(self, image, *, end=False):
            self.made += 1
            alive.append(self.made - len(list((tmp_path / "out" / "masks").glob("0*.png"))))
            return super().step(image, end=end)

    class Endless:
        """The frames of the directory, many times over."""

        def __init__(self):
            self.__dict__.update(vars(open_video(video)))
            self.frame_names = [f"{i:05d}" for i in range(200)]

        def frames(self, start=0):
            image = next(open_video(video).frames()).image
            for i in range(start, 200):
                yield segmentation.Frame(i, f"{i:05d}", image)

    masks = _masks(tmp_path / "m", {"00000": _box(1, 5)})
    source = Endless()
    folder = RunFolder(tmp_path / "out", {})
    files = MaskFiles(masks, source.frame_names)
    done, _ = segment(Watched(), source, files, folder, SegmentConfig())
    assert done == 200
    assert max(alive) <= 12


def test_overlay_has_every_finished_frame(video, tmp_path):
    masks = _masks(tmp_path / "m", {"00000": _box(1, 5)})
    _, folder, done, _ = _segment(video, masks, tmp_path / "out")
    drawn = []
    render_overlay(open_video(video), folder, PALETTE, done, Fraction(25), lambda: drawn.append(1))
    overlay = open_video(folder.overlay)
    frames = [frame.image for frame in overlay.frames()]
    assert len(frames) == len(drawn) == COUNT
    assert overlay.frame_rate == 25
    plain = [frame.image for frame in open_video(video).frames()]
    reds = [f[15:25, 5 + i : 15 + i].astype(int) - p[15:25, 5 + i : 15 + i]
            for i, (f, p) in enumerate(zip(frames, plain, strict=True))]  # fmt: skip
    assert all(np.abs(red).mean() > 15 for red in reds)
    outside = [np.abs(f[35:].astype(int) - p[35:]).mean() for f, p in zip(frames, plain)]  # noqa: B905
    assert max(outside) < 10


def test_session_errors_name_the_mask(video, tmp_path):
    class Picky(FakeSession):
        def add(self, masks):
            raise InputError("object 1 is not wanted")

    masks = _masks(tmp_path / "m", {"00000": _box(1, 5)})
    _, _, done, problem = _segment(video, masks, tmp_path / "out", session=Picky())
    assert done == 0
    assert "00000.png: object 1 is not wanted" in str(problem)


def test_an_empty_mask_says_that_all_objects_are_gone(video, tmp_path):
    given = {"00000": _box(1, 5), "00004": np.zeros((HEIGHT, WIDTH), np.uint8)}
    masks = _masks(tmp_path / "m", given)
    cleared: dict[int, dict[int, np.ndarray]] = {}

    class Session(FakeSession):
        def add(self, masks):
            if isinstance(masks, dict):
                cleared[len(self.ends)] = masks
            else:
                super().add(masks)

    config = SegmentConfig(all_masks=True, empty_clears=True)
    _, _, done, problem = _segment(video, masks, tmp_path / "out", config, Session())
    assert (done, problem) == (COUNT, None)
    assert [*cleared] == [4]
    assert [*cleared[4]] == [1]
    assert not cleared[4][1].any()
