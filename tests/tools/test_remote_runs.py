"""Training and segmentation whose paths are in an object store, killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from s3_jax.media.mask_files import MaskEncoding
from s3_jax.media.palette import voc_palette
from s3_jax.media.writers import write_mask
from s3_jax.training.progress import read_metrics
from tests.media.videos import moving_pictures, write_video_file

ROOT = Path(__file__).parents[2]
CONFIG = "tests/training/tiny_run.py"
SECONDS = 300
Command = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.slow


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[Command]:
    """A function that starts a command of a host, with its own copies; `gs://` is a directory."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, host: int = 0) -> subprocess.Popen[str]:
        module = [sys.executable, "-m", "tests.support.stores"]
        started.append(subprocess.Popen(
            [*module, str(tmp_path / "store"), str(tmp_path / f"host{host}"), *words],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"S3_JAX_CACHE": str(ROOT / ".cache/xla")},
        ))  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def finish(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    return output


def wait_for(place: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not place.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def losses(run: Path) -> dict[int, dict]:
    return {entry["step"]: entry["losses"] for entry in read_metrics(run / "metrics.jsonl")}


def test_hosts_without_a_shared_disk_train_and_go_on(tmp_path: Path, s3: Command) -> None:
    """Both are killed once the store has a checkpoint; their directories here are gone then."""
    store = tmp_path / "store"
    store.mkdir()

    def start(run: str, *more: str) -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        flags = [f"--config={CONFIG}", f"--workdir=gs://b/{run}", "--config.order=('static',)",
                 f"--coordinator=localhost:{port}", "--processes=2", *more]  # fmt: skip
        return [s3("train", *flags, f"--process={i}", host=i) for i in range(2)]

    for process in start("whole"):
        finish(process)
    begun = start("killed")
    wait_for(store / "b/killed/checkpoints/4/_CHECKPOINT_METADATA", begun[0])
    for process in begun:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    said = [finish(process) for process in start("killed")]
    assert "going on from step" in said[0]
    assert losses(store / "b/killed") == losses(store / "b/whole")
    # The kill may have cut short the removal of checkpoint 2, of which parts then remain.
    kept = {path.name for path in (store / "b/killed/checkpoints").iterdir()}
    assert {"4", "6"} <= kept <= {"2", "4", "6"}


def test_a_video_is_segmented_from_and_to_a_store(tmp_path: Path, s3: Command) -> None:
    """The masks are those of paths on this machine, and a second command finds them finished."""
    bucket = tmp_path / "store" / "b"
    bucket.mkdir(parents=True)
    write_video_file(bucket / "cats.mp4", moving_pictures(4, 48, 64))
    ids = np.zeros((48, 64), np.uint8)
    ids[10:30, 5:20] = 1
    write_mask(bucket / "first.png", ids, MaskEncoding("palette", voc_palette().tobytes()))

    def segment(place: str, output: str) -> str:
        flags = (f"--video={place}/cats.mp4", f"--masks={place}/first.png", f"--output={output}")
        return finish(s3("segment", "--checkpoint=s3_lite", *flags))

    assert "goes to gs://b/out\n" in segment("gs://b", "gs://b/out")
    segment(str(bucket), str(tmp_path / "here"))
    for file in (tmp_path / "here" / "masks").iterdir():
        assert (bucket / "out/masks" / file.name).read_bytes() == file.read_bytes()
    assert (bucket / "out/overlay.mp4").stat().st_size > 1000
    assert "is finished: 4 frames" in segment("gs://b", "gs://b/out")
