"""Commands on a local Ray cluster: workers are killed, and results have the same bytes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from s3_jax.checkpoints.model import save_model
from tests.benchmarks.benchmark_files import make_davis
from tests.data.datasets import make_videos
from tests.support.tiny_models import TINY_RESNET, tiny_variables

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "S3_JAX_CACHE": str(ROOT / ".cache/xla")}
TIMEOUT = 600
ACTOR = "ray::VideoActor"  # as Ray names its processes


def start(module: str, folder: Path, **flags: object) -> subprocess.Popen:
    words = [f"--{name}={value}" for name, value in flags.items()]
    command = [sys.executable, "-m", module, "--dataset=davis2017-val", *words]
    command += [f"--data_dir={folder / 'davis'}", f"--checkpoint={folder / 'checkpoint'}"]
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> tuple[str, str]:
    try:
        out, error = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert process.returncode == 0, error
    return out, error


def kill_an_actor(process: subprocess.Popen) -> int:
    """Kill one of the command's actors, without warning; its process."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            if ACTOR in " ".join(child.cmdline()):
                child.send_signal(signal.SIGKILL)
                return child.pid
        time.sleep(0.02)
    raise AssertionError(f"no actor to kill; the command: {process.communicate()}")


def wait_for_masks(process: subprocess.Popen, output: Path, count: int) -> None:
    deadline = time.monotonic() + TIMEOUT
    while len(list(output.glob("Annotations/*/*.png"))) < count:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def results(output: Path) -> dict[str, bytes]:
    files = sorted(output.glob("Annotations/*/*.png"))
    return {str(file.relative_to(output)): file.read_bytes() for file in files}


def killed_twice(module: str, folder: Path, videos: int, frames: int) -> None:
    """A plain run, and one on two workers of which one is killed twice."""
    make_davis(folder / "davis", {f"v{i:02}": frames + i % 3 for i in range(videos)})
    total = sum(frames + i % 3 for i in range(videos))
    finish(start(module, folder, output=folder / "plain"))
    process = start(module, folder, output=folder / "ray", ray="true", ray_workers=2)
    for part in (total // 8, total // 2):
        wait_for_masks(process, folder / "ray", part)
        kill_an_actor(process)
    out, error = finish(process)
    assert f"{videos} videos, {total} frames" in out
    assert "its worker was lost, another goes on" in error
    plain = results(folder / "plain")
    assert len(plain) == total
    assert results(folder / "ray") == plain
    record = json.loads((folder / "ray/run.json").read_text())
    assert record["finished"] and sorted(record["videos"]) == [f"v{i:02}" for i in range(videos)]


def test_a_worker_killed_twice_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    killed_twice("tests.tools.fake_ray_predict", tmp_path, videos=12, frames=4)


def test_forty_videos_with_the_network(tmp_path: Path) -> None:
    save_model(tmp_path / "checkpoint", TINY_RESNET, tiny_variables(TINY_RESNET))
    killed_twice("tools.predict", tmp_path, videos=40, frames=6)


def test_a_data_set_is_checked_by_workers(tmp_path: Path) -> None:
    make_videos(tmp_path / "videos", names="abc", num_frames=4, empty=[2])
    broken = tmp_path / "videos/JPEGImages/480p/a/00001.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    command = [sys.executable, "-m", "tools.prepare_dataset", f"--input={tmp_path / 'videos'}"]
    for name, more in (("plain", []), ("ray", ["--ray"])):
        words = [f"--output={tmp_path / name}", "--name=discs", *more]
        done = subprocess.run(
            [*command, *words], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    whole = [
        {str(f.relative_to(tmp_path / name)): f.read_bytes() for f in files(tmp_path / name)}
        for name in ("plain", "ray")
    ]
    assert whole[0] == whole[1] and len(whole[0]) > 4


def files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*")) if file.is_file()]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"shard": "0/2"}, "--ray spreads the videos itself: leave --shard out"),
        ({"ray_workers": 99}, "--ray_workers is 99, but the cluster has"),
        ({"ray": "localhost:1"}, "--ray=localhost:1"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(
    tmp_path: Path, flags: dict[str, object], message: str
) -> None:
    (tmp_path / "checkpoint").mkdir()
    make_davis(tmp_path / "davis", {"a": 2})
    given = {"ray": "true", "output": tmp_path / "out"} | flags
    process = start("tests.tools.fake_ray_predict", tmp_path, **given)
    try:
        _, error = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    assert process.returncode == 1 and message in error and "Traceback" not in error
