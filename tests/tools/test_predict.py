"""The predict command as a user runs it, with a stand-in session except at the end."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from s3_jax.checkpoints.model import save_model
from s3_jax.media.mask_files import read_mask
from tests.benchmarks.benchmark_files import make_davis, make_youtube, numbered
from tests.support import commands
from tests.support.tiny_models import TINY_RESNET, tiny_variables

ROOT = Path(__file__).parents[2]
VIDEOS = {"bear": 5, "bus": 8}
ENVIRONMENT = os.environ | {"JAX_PLATFORMS": "cpu", "S3_JAX_CACHE": str(ROOT / ".cache/xla")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with a data set and something that passes for a checkpoint."""
    make_davis(tmp_path / "davis", VIDEOS)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "weights").write_text("0")
    return tmp_path


def _flags(folder: Path, flags: dict[str, object]) -> list[str]:
    defaults = {
        "dataset": "davis2017-val",
        "data_dir": folder / "davis",
        "checkpoint": folder / "checkpoint",
        "output": folder / "out",
    }
    given = {name: value for name, value in (defaults | flags).items() if value is not None}
    return [f"--{name}={value}" for name, value in given.items()]


def _command(folder: Path, module: str, flags: dict[str, object]) -> list[str]:
    return [sys.executable, "-m", module, *_flags(folder, flags)]


def _run(
    folder, module="tests.tools.fake_predict", environment=ENVIRONMENT, **flags
) -> subprocess.CompletedProcess:
    return commands.run(module, *_flags(folder, flags), env=environment)


def _fails(result: subprocess.CompletedProcess, *parts: str) -> None:
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr


def _results(output: Path) -> dict[str, bytes]:
    files = [p for p in output.rglob("*") if p.is_file()]
    names = {p.relative_to(output).as_posix(): p for p in files if not p.name.startswith("run")}
    return {name: path.read_bytes() for name, path in names.items() if "progress" not in name}


def test_masks_record_and_what_to_do_next(folder):
    result = _run(folder, mem_every=7)
    assert result.returncode == 0, result.stderr
    out = folder / "out"
    assert sorted(p.name for p in out.iterdir()) == ["Annotations", "progress", "run.json"]
    for name, count in VIDEOS.items():
        masks = sorted((out / "Annotations" / name).iterdir())
        assert [p.stem for p in masks] == numbered(count)
    assert "2 videos, 13 frames" in result.stdout
    assert f"python -m tools.score --results={out}" in result.stdout
    assert "frames/s" in result.stderr  # the progress bar
    record = json.loads((out / "run.json").read_text())
    settings = record["settings"]
    assert (settings["dataset"], settings["size"]) == ("davis2017-val", 480)
    assert (settings["mem_every"], settings["max_mem_frames"]) == (7, 5)
    assert (record["frames"], sorted(record["videos"])) == (13, sorted(VIDEOS))
    assert record["versions"]["jax"]
    assert record["peak_memory"] > 10**7
    assert record["frames_per_second"] > 0
    assert record["data_dir"] == str(folder / "davis")
    again = _run(folder, mem_every=7)
    assert again.returncode == 0
    assert "13/13" in again.stderr
    _fails(_run(folder), "another mem_every (7, now 5)", "--overwrite")
    assert _run(folder, overwrite=True).returncode == 0


@pytest.mark.parametrize(("flags", "expected"), [({}, (3, 1)), ({"mem_every": 4}, (4, 1))])
def test_the_network_decides_what_no_flag_sets(folder, flags, expected):
    checkpoint = (folder / "checkpoint").rename(folder / "s3_lite")
    assert _run(folder, checkpoint=checkpoint, **flags).returncode == 0
    settings = json.loads((folder / "out/run.json").read_text())["settings"]
    assert (settings["mem_every"], settings["stagger"]) == expected


def test_shards_together_make_the_whole(folder):
    data = make_youtube(folder / "youtube", ["a1", "b2", "c3"])
    flags = {"dataset": "youtubevos2019-val", "data_dir": data, "plus": True}
    whole = _run(folder, output=folder / "whole", **flags)
    assert whole.returncode == 0, whole.stderr
    first = _run(folder, shard="0/2", **flags)
    assert "1 of 3 videos are left to other shards" in first.stdout, first.stderr
    assert not (folder / "out/submission.zip").exists()
    slurm = ENVIRONMENT | {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}
    second = _run(folder, environment=slurm, **flags)
    assert f"to hand in: {folder / 'out/submission.zip'}" in second.stdout
    assert _results(folder / "out") == _results(folder / "whole")
    with zipfile.ZipFile(folder / "out/submission.zip") as archive:
        assert len(archive.namelist()) == 9
    records = {p.name: json.loads(p.read_text()) for p in (folder / "out").glob("run*.json")}
    assert sorted(records) == ["run_0_of_2.json", "run_1_of_2.json"]
    videos = [name for record in records.values() for name in record["videos"]]
    assert sorted(videos) == ["a1", "b2", "c3"]
    settings = records["run_0_of_2.json"]["settings"]
    assert (settings["size"], settings["max_mem_frames"]) == (600, 10)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"dataset": "vost-val", "plus": True}, "--plus: there are no such settings for vost-val"),
        ({"shard": "2/2"}, "--shard is 2/2, but shares of 2 are 0 to 1"),
        ({"size": 8}, "--size is 8, but must be at least 32"),
        ({"data_dir": "/nowhere"}, "--data_dir: /nowhere is not a directory"),
        ({"dataset": "burst-val"}, "the file of masks is not there: looked for"),
    ],
)
def test_flags_that_cannot_be_used(folder, flags, message):
    _fails(_run(folder, **flags), message)
    assert not (folder / "out").exists()


def test_a_bad_video_is_told_when_the_others_are_done(folder):
    (folder / "davis/JPEGImages/480p/bus/00003.jpg").write_bytes(b"no picture")
    result = _run(folder)
    _fails(result, "bus: cannot read the image", "1 of 2 videos are done; the same command")
    assert len(list((folder / "out/Annotations/bear").iterdir())) == 5
    record = json.loads((folder / "out/run.json").read_text())
    assert list(record["problems"]) == ["bus"]


def test_strange_output_directory(folder):
    result = _run(folder, output=folder / "davis")
    _fails(result, "Annotations exists already and was not made by tools.predict")


def test_help_teaches():
    text = subprocess.run(
        [sys.executable, "-m", "tools.predict", "--help"], cwd=ROOT, capture_output=True, text=True,
        timeout=60,
    ).stdout  # fmt: skip
    for part in (
        "--dataset=davis2017-val",
        "valid_all_frames",
        "--shard",
        "Examples",
        "--mem_every",
        "the data set's",
    ):
        assert part in text


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_model(path, TINY_RESNET, tiny_variables(TINY_RESNET))
    return path


@pytest.mark.slow
def test_a_run_killed_again_and_again_gives_the_same_bytes(folder, checkpoint):
    """The network itself runs on two devices and is killed without warning at several moments."""
    flags = {"checkpoint": checkpoint, "mem_every": 2, "save_scores": True}
    xla_flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    environment = ENVIRONMENT | {"XLA_FLAGS": xla_flags}
    whole = _run(folder, "tools.predict", environment, output=folder / "whole", **flags)
    assert whole.returncode == 0, whole.stderr
    command = _command(folder, "tools.predict", flags)
    for frames in (1, 6):
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list((folder / "out").glob("Annotations/*/0*.png"))) < frames:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = _run(folder, "tools.predict", environment, **flags)
    assert last.returncode == 0, last.stderr
    assert _results(folder / "out") == _results(folder / "whole")
    assert len(_results(folder / "out")) == 2 * 13
    record = json.loads((folder / "out/run.json").read_text())
    assert [d["kind"] for d in record["devices"]] == ["cpu", "cpu"]
    assert read_mask(folder / "out/Annotations/bear/00000.png").object_ids == (1, 2)
