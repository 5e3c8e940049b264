"""A directory belongs to one process at a time, however that process ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from s3_jax.errors import InputError
from s3_jax.files import Lock, replacing
from s3_jax.segmentation.run_folder import RunFolder
from s3_jax.segmentation.run_record import RunRecord
from s3_jax.training.run_data import claim_directory

HOLDER = """
import sys, time
from pathlib import Path
from s3_jax.files import Lock, replacing
lock = Lock(Path(sys.argv[1]), shared=len(sys.argv) > 2)
print("ready", flush=True)
time.sleep(600)
"""
USERS = {
    "segmentation": lambda path: RunFolder(path, {"a": 1}),
    "prediction": lambda path: RunRecord(path, {"a": 1}, (0, 1)),
    "a share": lambda path: RunRecord(path, {"a": 1}, (1, 2)),
    "training": lambda path: claim_directory(path, {"a": 1}),
}


@pytest.fixture
def hold():
    """Start a process that holds a lock."""
    holders = []

    def start(*arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLDER, *map(str, arguments)]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        holders.append(holder)
        assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
        return holder

    yield start
    for holder in holders:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.mark.parametrize("name", USERS)
def test_two_runs_in_one_directory(tmp_path: Path, hold, name: str):
    holder = hold(tmp_path)
    flag = "--workdir" if name == "training" else "--output"
    with pytest.raises(InputError, match=f"in use by process {holder.pid}: .*another {flag}"):
        USERS[name](tmp_path)
    assert not list(tmp_path.iterdir())
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    USERS[name](tmp_path)


def test_shares_of_a_prediction_go_together(tmp_path: Path, hold):
    hold(tmp_path, "shared")
    USERS["a share"](tmp_path)
    with pytest.raises(InputError, match="in use"):
        USERS["prediction"](tmp_path)


def test_the_directory_is_free_after_a_block(tmp_path: Path, hold):
    with Lock(tmp_path):
        pass
    hold(tmp_path)


@pytest.mark.parametrize("named", [None, "{}", "file:{}"])
def test_a_full_disk_names_the_file_itself(tmp_path: Path, named: str | None):
    with pytest.raises(OSError, match="No space") as caught, replacing(tmp_path / "v.mp4") as path:
        path.write_text("half")
        raise OSError(28, "No space left on device", named and named.format(path))
    assert caught.value.filename == str(tmp_path / "v.mp4")
    assert not list(tmp_path.iterdir())
