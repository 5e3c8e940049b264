"""The command that prepares data sets, as a user runs it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from s3_jax.data.config import RecordsConfig
from s3_jax.data.empty_masks import read
from s3_jax.data.sources import open_source
from tests.data.datasets import make_photographs, make_videos, read_json
from tests.support import commands

ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tools.prepare_dataset", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess:
    return commands.run("tools.prepare_dataset", *arguments)


def test_videos_are_prepared_and_reported(tmp_path):
    make_videos(tmp_path / "videos", names="ab", num_frames=4, empty=[2])
    broken = tmp_path / "videos" / "JPEGImages" / "480p" / "a" / "00001.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    result = run(f"--input={tmp_path / 'videos'}", f"--output={tmp_path / 'out'}", "--name=discs")
    assert result.returncode == 0, result.stderr
    assert "2 of 2 videos and 7 of 8 frames" in result.stdout
    assert "left out: cannot read the image" in result.stderr and "a/00001.jpg" in result.stderr
    assert read_json(tmp_path / "out" / "discs" / "report.json")["frames_without_object"] == 2
    assert read(tmp_path / "out" / "discs" / "empty_masks.json") == {"a": ["00002"], "b": ["00002"]}
    source = open_source(RecordsConfig(str(tmp_path / "out" / "discs" / "1.0.0")))
    assert len(source) == 2
    assert source.open(1, np.random.default_rng(0), 3).ids(0).max() == 2
    again = run(f"--input={tmp_path / 'videos'}", f"--output={tmp_path / 'out'}", "--name=discs")
    assert again.returncode == 1 and "is there already" in again.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["discs"]


def test_photographs_can_be_checked_only(tmp_path):
    make_photographs(tmp_path / "photographs", 3)
    result = run(
        f"--input={tmp_path / 'photographs'}",
        f"--output={tmp_path / 'out'}",
        "--name=discs",
        "--layout=images",
        "--check_only",
    )
    assert result.returncode == 0, result.stderr
    assert "3 of 3 videos" in result.stdout
    assert sorted(p.name for p in (tmp_path / "out" / "discs").iterdir()) == [
        "empty_masks.json",
        "report.json",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --input, --output and --name"),
        (["--input=nowhere", "--output={tmp}", "--name=a"], "nowhere does not exist"),
        (["--input={tmp}", "--output={tmp}", "--name=A-1"], "small letters, digits and _ only"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path, arguments, message):
    result = run(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert result.returncode == 1
    assert message in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_killed_run_leaves_nothing_half_done_and_goes_on(tmp_path):
    make_videos(tmp_path / "videos", names=[f"v{i}" for i in range(25)], num_frames=12)
    arguments = (
        f"--input={tmp_path / 'videos'}",
        f"--output={tmp_path / 'out'}",
        "--name=discs",
        "--workers=1",
    )
    log = tmp_path / "out" / "discs" / ".checks.jsonl"
    process = subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (log.exists() and len(log.read_text().splitlines()) > 3):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "discs" / "1.0.0").exists()
    stale = tmp_path / "out" / "discs" / "incomplete.XYZ_1.0.0"  # as a kill while writing leaves
    stale.mkdir()
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    assert "25 of 25 videos and 300 of 300 frames" in result.stdout
    assert not stale.exists() and not log.exists()
    assert len(open_source(RecordsConfig(str(tmp_path / "out" / "discs" / "1.0.0")))) == 25
