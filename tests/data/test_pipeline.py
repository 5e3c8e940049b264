"""Batches: their content, which depends only on the configuration and the step."""

import dataclasses
import os
import sys
from pathlib import Path
from unittest import mock

import cv2
import grain
import numpy as np
import pytest

from s3_jax.data import clips, videos, worker_processes
from s3_jax.data.config import (
    ColourConfig,
    DataConfig,
    ImageAugmentationConfig,
    ImageFolderConfig,
    SyntheticConfig,
    VideoAugmentationConfig,
    VideoFolderConfig,
)
from s3_jax.data.mixture import Mixture
from s3_jax.data.pipeline import Batch, clip_rows, make_pipeline
from s3_jax.data.sampling import draw_frames
from s3_jax.errors import InputError
from tests.data.datasets import COLOURS, draw, make_photographs, make_videos, save_image

SCENES = SyntheticConfig(height=48, width=64, num_frames=20, scenes=5, objects=(1, 3))
SMALL = DataConfig(sources=(SCENES,), crop=32, num_frames=3, num_threads=0, num_steps=100)
PLAIN = VideoAugmentationConfig(grey=0, clip_colour=ColourConfig(), frame_colour=ColourConfig())


def batches(config: DataConfig, count: int, **where: int) -> list[Batch]:
    where = {"batch_size": 2, **where}
    with make_pipeline(config, **where) as pipeline:
        return [next(pipeline) for _ in range(count)]


def assert_equal(ours: Batch, theirs: Batch) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def discs_in(tmp_path: Path) -> VideoFolderConfig:
    return VideoFolderConfig(str(tmp_path / "videos"))


def disc_videos(tmp_path: Path, **changes) -> DataConfig:
    """Clips of discs whose colours tell their ids."""
    make_videos(tmp_path / "videos")
    config = dataclasses.replace(
        SMALL, sources=(discs_in(tmp_path),), crop=48, video=PLAIN, merge=0.0
    )
    return dataclasses.replace(config, **changes)


def test_batches_have_the_promised_shapes_and_types():
    for step, batch in enumerate(batches(SMALL, 2, start_step=7)):
        assert {name: (v.shape, v.dtype.name) for name, v in batch.items()} == {
            "frames": ((2, 3, 32, 32, 3), "uint8"),
            "masks": ((2, 3, 32, 32), "uint8"),
            "num_objects": ((2,), "int32"),
            "step": ((), "int32"),
        }
        assert batch["step"] == 7 + step


def test_ids_are_contiguous_and_all_seen_in_the_first_frame():
    for batch in batches(dataclasses.replace(SMALL, max_objects=2), 6):
        for masks, count in zip(batch["masks"], batch["num_objects"], strict=True):
            assert 1 <= count <= 2
            assert set(np.unique(masks[0])) - {0} == set(range(1, count + 1))
            assert masks.max() <= count


def test_masks_follow_the_objects_through_the_whole_pipeline(tmp_path):
    for batch in batches(disc_videos(tmp_path), 8):
        for frames, masks in zip(batch["frames"], batch["masks"], strict=True):
            for object_id in set(np.unique(masks)) - {0}:
                # Which of the two discs an id stands for depends on the choice of objects.
                inside = frames[masks == object_id].astype(float)
                distance = [np.abs(inside - np.array(c)[None]).mean() for c in COLOURS[1:3]]
                assert len(inside) < 30 or min(distance) < 30


def test_the_same_step_gives_the_same_batch(tmp_path):
    config = disc_videos(tmp_path, sources=(discs_in(tmp_path), SCENES))
    ahead = batches(config, 4)
    assert_equal(ahead[3], batches(config, 1, start_step=3)[0])
    assert_equal(ahead[3], batches(dataclasses.replace(config, num_threads=3), 4)[3])
    assert not np.array_equal(ahead[2]["frames"], ahead[3]["frames"])
    other = batches(dataclasses.replace(config, seed=1), 1, start_step=3)[0]
    assert not np.array_equal(ahead[3]["frames"], other["frames"])


def test_hosts_share_the_global_batch_among_them(tmp_path):
    config = disc_videos(tmp_path)
    whole = batches(config, 3, batch_size=4)[1:]
    for host in range(2):
        parts = batches(config, 2, batch_size=2, host_index=host, host_count=2, start_step=1)
        for part, batch in zip(parts, whole, strict=True):
            own = slice(2 * host, 2 * host + 2)  # as a training step numbers the rows
            np.testing.assert_array_equal(part["frames"], batch["frames"][own])
            np.testing.assert_array_equal(part["masks"], batch["masks"][own])


def test_worker_processes_give_the_same_batches_without_jax(tmp_path):
    config = disc_videos(tmp_path)
    parallel = dataclasses.replace(config, num_workers=2, num_threads=1)
    with make_pipeline(parallel, batch_size=1, start_step=2) as pipeline:
        ours = [next(pipeline) for _ in range(3)]
        if Path("/proc").exists():
            workers = [w for w in children() if "spawn_main" in w.read_text()]
            loaded = [(w.parent / "maps").read_text() for w in workers]
            assert len(loaded) == 2
            assert not any("jaxlib" in libraries for libraries in loaded)
    for batch, expected in zip(ours, batches(config, 3, batch_size=1, start_step=2), strict=True):
        assert_equal(batch, expected)
    assert sys.modules["jax"] is not None
    assert sys.modules["__main__"].__name__ == "__main__"


def children() -> list[Path]:
    """`cmdline` files of this process's children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid():
            found.append(stat.parent / "cmdline")
    return found


def test_every_clip_of_an_epoch_comes_once_and_in_a_new_order(tmp_path):
    config = disc_videos(tmp_path)
    epochs = len(Mixture(config))
    assert epochs == 3
    rows = clip_rows(config, 3)
    # Videos differ in the height of their discs, clips in all else: compare what was opened.
    opened = [opened_by(rows, number) for number in range(9)]
    assert all(sorted(opened[i : i + 3]) == ["a", "b", "c"] for i in (0, 3, 6))
    assert len({tuple(opened[i : i + 3]) for i in (0, 3, 6)}) > 1


def opened_by(rows: grain.MapDataset, number: int) -> str:
    """The video of a clip, told by the files that are read for it."""
    with mock.patch.object(videos, "read_bytes", wraps=videos.read_bytes) as read:
        rows[number]
    (name,) = {call.args[0].parent.name for call in read.call_args_list}
    return name


def test_multipliers_weigh_sources(tmp_path):
    make_videos(tmp_path / "videos", names="ab")
    make_photographs(tmp_path / "photographs", 4)
    for multiplier, length in ((1, 6), (3, 10), (0.5, 5), (0.01, 5)):
        sources = (
            VideoFolderConfig(str(tmp_path / "videos"), multiplier=multiplier),
            ImageFolderConfig(str(tmp_path / "photographs")),
        )
        assert len(Mixture(dataclasses.replace(SMALL, sources=sources))) == length


def test_a_fraction_of_a_source_still_reaches_all_of_it(tmp_path):
    make_videos(tmp_path / "videos")
    source = VideoFolderConfig(str(tmp_path / "videos"), multiplier=1 / 3)
    config = dataclasses.replace(SMALL, sources=(source,), merge=0.0)
    rows = clip_rows(config, 1)
    assert {opened_by(rows, number) for number in range(3)} == {"a", "b", "c"}


def test_clips_spread_out_as_training_goes_on(tmp_path):
    config = disc_videos(tmp_path, skips=((0.0, 1), (0.5, 9)), num_steps=10, reverse=0.0)
    times = recorded_times(config, step=0)
    assert (np.diff(times) == 1).all()
    assert np.diff(recorded_times(config, step=5)).max() > 1
    assert np.diff(recorded_times(config, step=500)).max() > 1


def recorded_times(config: DataConfig, step: int) -> np.ndarray:
    """Frame numbers of the clips of one step."""
    drawn: list[list[int]] = []

    def draw_and_record(*args):
        drawn.append(draw_frames(*args))
        return drawn[-1]

    with mock.patch.object(clips, "draw_frames", draw_and_record):
        batches(config, 1, batch_size=6, start_step=step)
    return np.array(drawn)


def test_photographs_become_moving_clips(tmp_path):
    make_photographs(tmp_path)
    config = dataclasses.replace(
        SMALL, sources=(ImageFolderConfig(str(tmp_path)),), max_objects=1, crop=48
    )
    for batch in batches(config, 3):
        assert (batch["num_objects"] == 1).all()
        assert not np.array_equal(batch["masks"][:, 0], batch["masks"][:, 1])


def test_objects_cut_out_lie_over_their_background(tmp_path):
    make_photographs(tmp_path / "objects", 2)
    save_image(tmp_path / "views" / "grey.jpg", np.full((50, 70, 3), 90, np.uint8))
    source = ImageFolderConfig(
        str(tmp_path / "objects"), backgrounds=str(tmp_path / "views"), background_share=1.0
    )
    still = ImageAugmentationConfig(grey=0, clip_colour=ColourConfig(), frame_colour=ColourConfig())
    config = dataclasses.replace(SMALL, sources=(source,), image=still, crop=48, merge=0.0)
    for batch in batches(config, 3):
        outside = np.stack([erode(mask == 0) for mask in batch["masks"].reshape(-1, 48, 48)])
        pixels = batch["frames"].reshape(-1, 48, 48, 3)[outside]
        assert np.abs(pixels.astype(int) - 90).max() < 6


def erode(inside: np.ndarray) -> np.ndarray:
    return cv2.erode(inside.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(bool)


def test_merging_adds_objects_of_another_clip(tmp_path):
    make_videos(tmp_path / "videos", objects=1)
    source = VideoFolderConfig(str(tmp_path / "videos"))
    config = dataclasses.replace(SMALL, sources=(source,), crop=48, merge=0.0)
    alone = np.concatenate([b["num_objects"] for b in batches(config, 8)])
    merged = dataclasses.replace(config, merge=1.0)
    together = np.concatenate([b["num_objects"] for b in batches(merged, 8)])
    half = np.concatenate(
        [b["num_objects"] for b in batches(dataclasses.replace(config, merge=0.5), 14)]
    )
    assert (alone == 1).all()
    assert (together == 2).mean() > 0.6  # the rest is hidden at the start
    assert 0.15 < (half == 2).mean() < 0.7
    single = dataclasses.replace(merged, max_objects=1)
    assert all((b["num_objects"] == 1).all() for b in batches(single, 4))


def test_a_damaged_file_costs_one_replacement_and_is_named_once(tmp_path, caplog):
    config = disc_videos(tmp_path, max_failing=1.0)
    damaged = tmp_path / "videos" / "JPEGImages" / "480p" / "b" / "00006.jpg"
    damaged.write_bytes(damaged.read_bytes()[:500])
    with make_pipeline(config, batch_size=3) as pipeline:
        ours = [next(pipeline) for _ in range(12)]
        assert 0 < pipeline.failing < pipeline.clips
    reports = [r.message for r in caplog.records if "00006.jpg" in r.message]
    assert len(reports) == 1 and "another is used in its place" in reports[0]
    for batch, again in zip(ours, batches(config, 12, batch_size=3), strict=True):
        assert_equal(batch, again)


def test_a_mask_of_another_size_is_replaced_too(tmp_path, caplog):
    config = disc_videos(tmp_path, max_failing=1.0)
    for t in range(12):
        small, _ = draw((30, 40), [])
        save_image(tmp_path / "videos" / "JPEGImages" / "480p" / "b" / f"{t:05d}.jpg", small)
    batches(config, 4, batch_size=3)
    assert "is 40x30, but its first mask is 80x60" in caplog.text


def test_too_many_damaged_files_stop_the_pipeline(tmp_path):
    config = disc_videos(tmp_path, max_failing=0.05)
    for image in (tmp_path / "videos" / "JPEGImages" / "480p" / "b").glob("*.jpg"):
        image.write_bytes(b"no image")
    with (
        make_pipeline(config, batch_size=10) as pipeline,
        pytest.raises(InputError, match=r"of 100 clips met files .* max_failing \(5%\)"),
    ):
        for _ in range(12):
            next(pipeline)


def test_a_data_set_that_vanished_is_an_error_not_a_hang(tmp_path):
    config = disc_videos(tmp_path, sequences_tried=5)
    with make_pipeline(config, batch_size=1) as pipeline:
        next(pipeline)
        for image in (tmp_path / "videos").rglob("*.jpg"):
            image.unlink()
        with pytest.raises(InputError, match=r"5 of 5 videos tried cannot be read: .*No such file"):
            for _ in range(4):
                next(pipeline)


def test_a_data_set_without_objects_is_an_error(tmp_path):
    make_videos(tmp_path, empty=range(12))
    config = dataclasses.replace(
        SMALL, sources=(VideoFolderConfig(str(tmp_path)),), sequences_tried=3
    )
    with (
        make_pipeline(config, batch_size=1) as pipeline,
        pytest.raises(InputError, match=r"none of 3 videos tried shows an object .* binary=True"),
    ):
        next(pipeline)


def test_first_frames_without_objects_are_drawn_anew(tmp_path):
    make_videos(tmp_path, empty=[0, 1, 2, 3, 9, 10, 11])
    config = dataclasses.replace(SMALL, sources=(VideoFolderConfig(str(tmp_path)),))
    assert all((batch["num_objects"] >= 1).all() for batch in batches(config, 6))


def test_short_videos_are_left_out_or_refused(tmp_path, caplog):
    make_videos(tmp_path / "videos", names="ab", num_frames=12)
    make_videos(tmp_path / "videos", names="c", num_frames=4)
    config = dataclasses.replace(SMALL, sources=(VideoFolderConfig(str(tmp_path / "videos")),))
    assert len(Mixture(dataclasses.replace(config, num_frames=5))) == 2
    assert "1 of 3 videos have fewer annotated frames than a clip (5)" in caplog.text
    with pytest.raises(InputError, match=r"all 3 videos have fewer .*the longest has 12"):
        Mixture(dataclasses.replace(config, num_frames=13))


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"start_step": -1}, {"host_index": 2, "host_count": 2}]
)
def test_impossible_requests_are_refused(wrong):
    with pytest.raises(ValueError, match="sizes must be positive"):
        make_pipeline(SMALL, **{"batch_size": 2, **wrong})


def test_too_little_shared_memory_is_told_beforehand(tmp_path):
    config = disc_videos(tmp_path, num_workers=2)
    little = mock.Mock(free=2**16)
    with (
        mock.patch.object(worker_processes.shutil, "disk_usage", return_value=little),
        mock.patch.object(worker_processes, "SHARED_MEMORY", tmp_path),
        pytest.raises(InputError, match="lower num_workers or clips_ahead"),
    ):
        make_pipeline(config, batch_size=1)
