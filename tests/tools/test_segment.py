"""The segment command as a user runs it, with a stand-in session except at the end."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3_jax.config import PropagationConfig
from s3_jax.media.mask_files import MaskEncoding, read_mask
from s3_jax.media.palette import voc_palette
from s3_jax.media.video_files import open_video
from s3_jax.media.writers import write_mask
from tests.media.videos import moving_pictures, write_video_file
from tests.support import commands

ROOT = Path(__file__).parents[2]
FAKE = "tests.tools.fake_session"  # the command, with a network that shifts masks
PALETTE = MaskEncoding("palette", voc_palette().tobytes())
COUNT = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with frames/, video.mp4, masks/00000.png and checkpoint/."""
    pictures = moving_pictures(COUNT, 48, 64)
    (tmp_path / "frames").mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / "frames" / f"{i:05d}.jpg", quality=95)
    write_video_file(tmp_path / "video.mp4", pictures)
    ids = np.zeros((48, 64), np.uint8)
    ids[10:30, 5:20], ids[20:40, 30:45] = 1, 4
    (tmp_path / "masks").mkdir()
    write_mask(tmp_path / "masks" / "00000.png", ids, PALETTE)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "weights").write_text("0")
    return tmp_path


def _flags(folder: Path, flags: dict[str, object]) -> list[str]:
    defaults = {
        "video": folder / "frames",
        "masks": folder / "masks",
        "checkpoint": folder / "checkpoint",
        "output": folder / "out",
    }
    given = {name: value for name, value in (defaults | flags).items() if value is not None}
    return [f"--{name}={value}" for name, value in given.items()]


def _command(folder: Path, module: str, flags: dict[str, object]) -> list[str]:
    return [sys.executable, "-m", module, *_flags(folder, flags)]


def _run(folder, **flags) -> subprocess.CompletedProcess:
    return commands.run(FAKE, *_flags(folder, flags))


def _fails(result: subprocess.CompletedProcess, *parts: str) -> None:
    """The command failed with one line that holds all parts."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith(f"{FAKE}: ")]
    assert len(lines) == 1, result.stderr
    for part in parts:
        assert part in lines[0]


def _contents(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(path.iterdir())}


SEVERAL = """
import sys, threading
import jax
from s3_jax.cli import command, propagation_flags, segment
from s3_jax.config import ModelConfig
from tests.tools.fake_session import FakeSession

together, used = threading.Barrier(3), []

def load(checkpoint, config):
    used.append(jax.config.jax_default_device)
    together.wait(60)  # until three videos are under way
    return FakeSession()

segment._find_checkpoint, segment._load_session = segment.Path, load
propagation_flags._network_of = lambda checkpoint: ModelConfig()

def main():
    code = segment.main()
    print("devices", len(set(used)))
    return code

main.__module__ = segment.__name__
command.run(main)
"""


def _several(folder: Path, *names: str, masks: int) -> list[str]:
    videos = [f"--video={folder / name}" for name in names]
    given = [f"--masks={folder / 'masks'}"] * masks
    return [*videos, *given, f"--checkpoint={folder / 'checkpoint'}", f"--output={folder / 'all'}"]


def test_several_videos_are_done_on_devices_of_their_own(folder):
    (folder / "again").symlink_to(folder / "frames")
    (folder / "third").symlink_to(folder / "frames")
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, *_several(folder, "frames", "again", "third", masks=3)],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 of 3 videos are done" in done.stdout and "devices 3" in done.stdout
    assert _run(folder).returncode == 0
    for name in ("frames", "again", "third"):
        assert _contents(folder / "all" / name / "masks") == _contents(folder / "out" / "masks")


@pytest.mark.parametrize(
    ("names", "masks", "says"),
    [
        (("frames", "video.mp4"), 1, "2 --video and 1 --masks: several videos need masks each"),
        (("frames", "masks/../frames"), 2, "two are named frames"),
    ],
)
def test_videos_that_cannot_be_told_apart_are_refused(folder, names, masks, says):
    command = [sys.executable, "-m", FAKE, *_several(folder, *names, masks=masks)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    _fails(done, says)


def test_a_video_that_fails_leaves_the_others(folder):
    (folder / "empty").mkdir()
    command = [sys.executable, "-m", FAKE, *_several(folder, "empty", "frames", masks=2)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    _fails(done, str(folder / "empty"))
    assert "1 of 2 videos are done" in done.stdout
    assert len(_contents(folder / "all" / "frames" / "masks")) == COUNT


def test_frames_in_masks_and_overlay_out(folder):
    result = _run(folder, save_scores=True)
    assert result.returncode == 0, result.stderr
    out = folder / "out"
    assert sorted(p.name for p in out.iterdir()) == ["masks", "overlay.mp4", "run.json", "scores"]
    names = [f"{i:05d}" for i in range(COUNT)]
    assert [p.stem for p in sorted((out / "masks").iterdir())] == names
    assert [p.stem for p in sorted((out / "scores").iterdir())] == names
    first = (folder / "masks" / "00000.png").read_bytes()
    assert (out / "masks" / "00000.png").read_bytes() == first
    assert read_mask(out / "masks" / "00011.png").object_ids == (1, 4)
    assert len(list(open_video(out / "overlay.mp4").frames())) == COUNT
    assert re.search(r"12 frames of 64x48, .* [\d.]+ frames/s, objects \[1, 4\]", result.stdout)
    assert "frames/s" in result.stderr  # the progress bar


def test_video_file_with_grey_mask(folder):
    grey = np.where(read_mask(folder / "masks" / "00000.png").ids > 0, 255, 0).astype(np.uint8)
    Image.fromarray(grey).save(folder / "first.png")
    result = _run(folder, video=folder / "video.mp4", masks=folder / "first.png")
    assert result.returncode == 0, result.stderr
    with Image.open(folder / "out" / "masks" / "00003.png") as mask:
        assert mask.mode == "L"
        assert np.array_equal(np.unique(np.asarray(mask)), [0, 255])
    overlay = open_video(folder / "out" / "overlay.mp4")
    assert overlay.frame_rate == open_video(folder / "video.mp4").frame_rate
    assert overlay.num_frames == COUNT


def test_finished_runs_say_so_and_remake_the_overlay(folder):
    first = _run(folder, overlay="false")
    assert first.returncode == 0, first.stderr
    assert not (folder / "out" / "overlay.mp4").exists()
    stamps = {p: p.stat().st_mtime_ns for p in (folder / "out" / "masks").iterdir()}
    again = _run(folder)
    assert again.returncode == 0, again.stderr
    assert "is finished: 12 frames" in again.stdout
    assert (folder / "out" / "overlay.mp4").exists()
    assert stamps == {p: p.stat().st_mtime_ns for p in (folder / "out" / "masks").iterdir()}


def test_other_settings_are_refused_unless_overwriting(folder):
    assert _run(folder).returncode == 0
    _fails(_run(folder, mem_every=3), "another mem_every (5, now 3)", "--overwrite")
    _fails(_run(folder, video=folder / "video.mp4"), "another video", "choose another --output")
    assert _run(folder, mem_every=3, overwrite=True).returncode == 0


def _start_slowly(folder: Path, frames: int) -> subprocess.Popen:
    """A run that takes a while, returned once it has written that many masks."""
    process = subprocess.Popen(
        _command(folder, FAKE, {}),
        cwd=ROOT, env=os.environ | {"DELAY": "0.2"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    for _ in range(600):
        if len(list((folder / "out" / "masks").glob("0*.png"))) >= frames:
            return process
        time.sleep(0.05)
    raise TimeoutError(process.communicate(timeout=10))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_runs_continue(folder, how):
    process = _start_slowly(folder, frames=3)
    process.send_signal(how)
    error = process.communicate(timeout=60)[1]
    if how is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, error
        assert "interrupted after" in error
        assert "Traceback" not in error
    done = len(list((folder / "out" / "masks").glob("0*.png")))
    assert 3 <= done < COUNT
    again = _run(folder)
    assert again.returncode == 0, again.stderr
    computed = int(re.search(r"(\d+) of them now", again.stdout).group(1))
    assert computed == COUNT if how is signal.SIGKILL else computed <= COUNT - 3
    whole = _run(folder, output=folder / "whole")
    assert whole.returncode == 0, whole.stderr
    for part in ("masks", "."):
        mine, theirs = folder / "out" / part, folder / "whole" / part
        names = [p.name for p in sorted(mine.iterdir()) if p.is_file()]
        assert names == [p.name for p in sorted(theirs.iterdir()) if p.is_file()]
        assert all((mine / n).read_bytes() == (theirs / n).read_bytes() for n in names)


def test_a_second_interruption_ends_at_once(folder):
    process = _start_slowly(folder, frames=2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.03)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert "interrupted" in error
    again = _run(folder)
    assert again.returncode == 0, again.stderr
    assert len(list((folder / "out" / "masks").iterdir())) == COUNT


def test_damaged_frame(folder):
    frame = folder / "frames" / "00007.jpg"
    good = frame.read_bytes()
    frame.write_bytes(good[:200])
    _fails(_run(folder), str(frame), "the 7 frames before it are in")
    assert len(list((folder / "out" / "masks").iterdir())) == 7
    assert len(list(open_video(folder / "out" / "overlay.mp4").frames())) == 7
    frame.write_bytes(good)
    again = _run(folder)
    assert again.returncode == 0, again.stderr
    assert "12 frames of 64x48, 5 of them now" in again.stdout


def test_truncated_video_file(folder):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(40)]
    write_video_file(folder / "long.mp4", pictures)
    data = (folder / "long.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    for _ in range(2):  # the second time, all but the missing end is there already
        _fails(_run(folder, video=folder / "cut.mp4"), "cut.mp4 is damaged or cut off after frame")
        assert 10 < len(list((folder / "out" / "masks").iterdir())) < 40


def test_mask_for_a_frame_the_video_does_not_have(folder):
    write_mask(folder / "masks" / "00012.png", np.tri(48, 64, dtype=np.uint8) * 2, PALETTE)
    _fails(_run(folder, video=folder / "video.mp4"), "00012.png", "which has 12 frames")
    assert len(list((folder / "out" / "masks").iterdir())) == 12


def test_a_file_that_cannot_be_written(folder):
    """The size limit stands for a full disk: masks fit, the overlay does not."""
    command = _command(folder, FAKE, {})
    limited = ["bash", "-c", 'ulimit -f 2 && exec "$@"', "bash", *command]  # 2 KiB
    result = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, timeout=60)
    _fails(result, "overlay.mp4", "File too large", "finished frames are kept")
    assert len(list((folder / "out" / "masks").iterdir())) == COUNT
    again = _run(folder)
    assert again.returncode == 0, again.stderr
    assert "12 frames of 64x48, 0 of them now" in again.stdout


def _empty_mask(folder: Path) -> dict[str, object]:
    write_mask(folder / "empty.png", np.zeros((48, 64), np.uint8), PALETTE)
    return {"masks": folder / "empty.png"}


def _wrong_size(folder: Path) -> dict[str, object]:
    write_mask(folder / "small.png", np.tri(24, 32, dtype=np.uint8), PALETTE)
    return {"masks": folder / "small.png"}


def _output_is_a_file(folder: Path) -> dict[str, object]:
    (folder / "file").touch()
    return {"output": folder / "file" / "out"}


def _output_holds_the_masks(folder: Path) -> dict[str, object]:
    return {"output": folder}


def _no_frames(folder: Path) -> dict[str, object]:
    (folder / "nothing").mkdir()
    return {"video": folder / "nothing"}


def _jpeg_mask(folder: Path) -> dict[str, object]:
    return {"masks": folder / "frames" / "00000.jpg"}


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (_empty_mask, ["empty.png is empty"]),
        (_wrong_size, ["small.png is 32x24", "are 64x48"]),
        (_output_is_a_file, ["cannot write to the output directory", "another --output"]),
        (_output_holds_the_masks, ["would write over it", "another --output"]),
        (lambda folder: {"output": folder / "frames"}, ["frames is within", "another --output"]),
        (lambda folder: {"output": folder / "masks/out"}, ["masks/out is within", "command reads"]),
        (_no_frames, ["nothing holds no images"]),
        (_jpeg_mask, ["00000.jpg is a JPEG"]),
        (lambda folder: {"video": folder / "gone.mp4"}, ["gone.mp4 does not exist"]),
        (lambda folder: {"video": folder / "checkpoint" / "weights"}, ["is not a video"]),
        (lambda folder: {"output": None}, ["--output is missing"]),
        (lambda folder: {"mem_every": 0}, ["--mem_every is 0", "at least 1"]),
        (lambda folder: {"lt_min_frames": 20}, ["--lt_max_frames is 10"]),
        (lambda folder: {"size": 0}, ["--size is 0"]),
        (lambda folder: {"void": -3}, ["--void is -3"]),
    ],
)
def test_bad_input_is_one_clear_line(folder, make, parts):
    before = _contents(folder / "masks")
    _fails(_run(folder, **make(folder)), *parts)
    assert _contents(folder / "masks") == before
    assert not (folder / "out" / "masks").exists()


@pytest.mark.parametrize("flag", ["--no_such_flag=1", "--mem_every=often", "--dtype=float8"])
def test_wrong_flags_are_explained(folder, flag):
    command = [*_command(folder, "tools.segment", {}), flag]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert flag.split("=")[0].strip("-") in result.stderr


def test_help_teaches():
    command = [sys.executable, "-m", "tools.segment", "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    shown = " ".join(result.stdout.split())
    fields = [field.name for field in dataclasses.fields(PropagationConfig)]
    for name in [*fields, "video", "masks", "checkpoint", "output", "size", "dtype", "all_masks"]:
        assert re.search(rf"--(\[no\])?{name}:", shown), name
    assert "python -m tools.segment --video=cats.mp4" in shown
    assert "--[no]debug" in shown


def test_interrupted_results_have_no_leftovers(folder):
    assert _run(folder).returncode == 0
    assert not [p for p in (folder / "out").rglob("*") if p.name.endswith((".tmp", ".state"))]


def test_both_directions_fill_what_is_before_a_mask(folder):
    mask = read_mask(folder / "masks" / "00000.png").ids
    (folder / "masks" / "00000.png").rename(folder / "masks" / "00007.png")
    result = _run(folder, both_directions=True, overlay=False)
    assert result.returncode == 0 and "stay empty" not in result.stderr, result.stderr
    for i in range(COUNT):
        found = read_mask(folder / "out" / "masks" / f"{i:05d}.png").ids
        np.testing.assert_array_equal(found, np.roll(mask, abs(i - 7), axis=1))
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["masks", "run.json"]
    _fails(_run(folder, overlay=False), "another both_directions")
