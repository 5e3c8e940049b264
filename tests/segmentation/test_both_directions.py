"""Masks on later frames also fill the frames before them; both passes can be resumed."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError
from s3_jax.media.mask_files import MaskEncoding, MaskFiles, read_mask
from s3_jax.media.palette import voc_palette
from s3_jax.media.video_files import open_video
from s3_jax.media.writers import write_mask
from s3_jax.models.s3 import S3
from s3_jax.propagation.session import Session
from s3_jax.segmentation import both_directions
from s3_jax.segmentation.both_directions import backwards, fill_backwards, masks_used
from s3_jax.segmentation.run_folder import RunFolder
from s3_jax.segmentation.video import Progress, SegmentConfig, segment
from tests.media.videos import moving_pictures, write_video_file
from tests.propagation.conftest import TINY
from tests.tools.fake_session import FakeSession

PALETTE = MaskEncoding("palette", voc_palette().tobytes())
HEIGHT, WIDTH, COUNT = 48, 64, 10
ALL = SegmentConfig(all_masks=True, empty_clears=True)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    (tmp_path / "frames").mkdir()
    for i, picture in enumerate(moving_pictures(COUNT, HEIGHT, WIDTH)):
        Image.fromarray(picture).save(tmp_path / "frames" / f"{i:05d}.png")
    return tmp_path / "frames"


def box(object_id: int, left: int) -> np.ndarray:
    ids = np.zeros((HEIGHT, WIDTH), np.uint8)
    ids[10:30, left : left + 10] = object_id
    return ids


def masks_in(folder: Path, masks: dict[int, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    for index, ids in masks.items():
        write_mask(folder / f"{index:05d}.png", ids, PALETTE)
    return folder


def run(
    video, masks, output, config=ALL, session=None, stop=lambda: False, stop_back=lambda: False
):
    """Both passes; the folder, and whether the second was finished."""
    source = open_video(video)
    folder = RunFolder(output, {"config": str(config)})
    session = session or FakeSession()
    files = MaskFiles(masks, source.frame_names)
    given = masks_used(files, config)
    config = dataclasses.replace(config, keep_before=given.last)
    given.reserve(session, forwards=True)
    done, problem = segment(session, source, files, folder, config, Progress(stop=stop))
    assert problem is None
    if done < COUNT:
        return folder, False
    progress = Progress(stop=stop_back)
    return folder, fill_backwards(session, source, files, folder, config, given, progress)


def written(folder: RunFolder) -> dict[int, np.ndarray]:
    return {int(path.stem): read_mask(path).ids for path in sorted(folder.masks.glob("*.png"))}


def test_a_mask_on_a_later_frame_fills_what_is_before(tmp_path, video):
    """The stand-in moves masks a pixel to the right with every frame it takes."""
    masks = masks_in(tmp_path / "masks", {6: box(3, 20)})
    folder, finished = run(video, masks, tmp_path / "out")
    assert finished
    for index, ids in written(folder).items():
        np.testing.assert_array_equal(ids, box(3, 20 + abs(index - 6)))


def test_without_it_frames_before_the_mask_stay_empty(tmp_path, video):
    source = open_video(video)
    folder = RunFolder(tmp_path / "out", {})
    files = MaskFiles(masks_in(tmp_path / "masks", {6: box(3, 20)}), source.frame_names)
    segment(FakeSession(), source, files, folder, SegmentConfig())
    assert not any(written(folder)[index].any() for index in range(6))
    assert not folder.forward.exists()


def test_a_span_between_two_masks_is_joined(tmp_path, video):
    """Nearer masks count more: here forwards and backwards are never at the same place."""
    masks = masks_in(tmp_path / "masks", {0: box(3, 10), 8: box(3, 40)})
    found = written(run(video, masks, tmp_path / "out")[0])
    for index in (1, 2, 3):
        np.testing.assert_array_equal(found[index], box(3, 10 + index))
    for index in (5, 6, 7):
        np.testing.assert_array_equal(found[index], box(3, 40 + 8 - index))
    np.testing.assert_array_equal(found[0], box(3, 10))
    assert (found[8][10:30, 40:50] == 3).all()  # the stand-in adds masks to what is there


def test_an_object_that_enters_later_is_filled_beside_the_others(tmp_path, video):
    masks = masks_in(tmp_path / "masks", {0: box(1, 4), 5: box(2, 40)})
    found = written(run(video, masks, tmp_path / "out", SegmentConfig())[0])
    for index in range(COUNT):
        expected = box(1, 4 + index) + box(2, 40 + abs(index - 5))
        np.testing.assert_array_equal(found[index], expected)


def test_only_first_masks_count_unless_all_are_used(tmp_path, video):
    masks = MaskFiles(
        masks_in(tmp_path / "masks", {1: box(1, 4), 4: box(2, 40) + box(1, 9), 7: box(1, 0) * 0}),
        open_video(video).frame_names,
    )
    first = masks_used(masks, SegmentConfig())
    assert first.wanted == {1: {1}, 4: {2}} and first.last == 4 and not first.clears
    every = masks_used(masks, ALL)
    assert every.wanted == {1: {1}, 4: {1, 2}} and every.clears == {7}
    assert every.shares(0) == {1: 0, 2: 0} and every.shares(2) == {1: pytest.approx(2 / 3), 2: 0}
    assert every.shares(9) == {1: 1, 2: 1}


def test_probabilities_of_the_joined_frames_are_saved(tmp_path, video):
    masks = masks_in(tmp_path / "masks", {0: box(3, 10), 8: box(3, 12)})
    config = dataclasses.replace(ALL, save_scores=True)
    folder, _ = run(video, masks, tmp_path / "out", config)
    for index in range(COUNT):
        with np.load(folder.scores / f"{index:05d}.npz") as scores:
            labels = np.array([0, *scores["ids"]])[scores["prob"].argmax(0)]
        np.testing.assert_array_equal(labels, written(folder)[index])


@pytest.mark.parametrize("kind", ["directory", "file"])
@pytest.mark.parametrize("frames", [1, 3, 100])
def test_frames_come_backwards_from_pieces(tmp_path, video, monkeypatch, kind, frames):
    if kind == "file":
        pictures = moving_pictures(COUNT, HEIGHT, WIDTH)
        video = write_video_file(tmp_path / "video.mp4", pictures) or tmp_path / "video.mp4"
    source = open_video(video)
    monkeypatch.setattr(both_directions, "READ_AT_ONCE", frames * 3 * HEIGHT * WIDTH)
    forwards = list(source.frames())[:8]
    found = list(backwards(source, 7))
    assert [f.index for f in found] == list(range(7, -1, -1))
    for one, other in zip(found, reversed(forwards), strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.image, other.image)


def test_a_damaged_file_of_probabilities_is_told(tmp_path, video):
    masks = masks_in(tmp_path / "masks", {0: box(3, 10), 8: box(3, 12)})
    run(video, masks, tmp_path / "out", stop_back=lambda: True)
    (tmp_path / "out" / "forward_probabilities" / "00003.npz").write_bytes(b"PK\3\4")
    with pytest.raises(InputError, match=r"00003\.npz cannot be read"):
        run(video, masks, tmp_path / "out")


def test_a_finished_run_leaves_no_work_behind(tmp_path, video):
    masks = masks_in(tmp_path / "masks", {0: box(3, 10), 8: box(3, 12)})
    folder, _ = run(video, masks, tmp_path / "out")
    assert len(list(folder.forward.glob("*.npz"))) == 8
    folder.finish(COUNT)
    assert sorted(p.name for p in folder.path.iterdir()) == ["masks", "run.json"]


class Killed(BaseException):
    """A process that ends at once, as far as a test can have it."""


@pytest.fixture(scope="module")
def variables():
    image, slots = np.zeros((1, 64, 64, 3), np.float32), np.zeros((1, 1, 64, 64), np.float32)
    return jax.jit(S3(TINY).init)(jax.random.key(0), image, slots)


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, COUNT + 4])
def test_a_stopped_or_killed_run_gives_the_same_bytes(tmp_path, video, variables, at):
    """The network itself is stopped in the first or second pass, then killed, then resumed."""
    masks = masks_in(tmp_path / "masks", {2: box(3, 10), 7: box(3, 12) + box(5, 40)})
    session = lambda: Session(TINY, variables, PropagationConfig(mem_every=2))  # noqa: E731
    whole, finished = run(video, masks, tmp_path / "whole", session=session())
    assert finished
    count = 0

    def stop() -> bool:
        nonlocal count
        count += 1
        return count == at

    def kill() -> bool:
        raise Killed

    folder, finished = run(video, masks, tmp_path / "out", ALL, session(), stop, stop)
    assert not finished
    with pytest.raises(Killed):
        run(video, masks, tmp_path / "out", ALL, session(), lambda: False, kill)
    folder, finished = run(video, masks, tmp_path / "out", session=session())
    assert finished
    for index in range(COUNT):
        name = f"{index:05d}.png"
        assert (folder.masks / name).read_bytes() == (whole.masks / name).read_bytes()
