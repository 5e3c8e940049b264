"""The benchmark command: the content of a row, and wrong flags."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def benchmark(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.benchmark", "--model=s3_lite", "--size=64x64", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_rows_hold_time_work_memory_and_compilation(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    done = benchmark("--stages=read,fuse", "--repeats=1", f"--csv={table}")
    assert done.returncode == 0, done.stderr
    assert "float32 matrix product" in done.stdout
    head, *rows = (line.split(",") for line in table.read_text().splitlines())
    assert [row[0] for row in rows] == ["read", "fuse"]
    measured = [dict(zip(head[1:], map(float, row[1:]), strict=True)) for row in rows]
    assert all(0 < row["share_of_peak"] < 1 for row in measured)
    positive = ("milliseconds", "gflop", "temporary_mb", "compile_seconds")
    assert all(row[name] > 0 for row in measured for name in positive)


@pytest.mark.slow
def test_a_video_is_timed_as_it_runs(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    done = benchmark("--stages=video", "--repeats=1", "--objects=2", f"--csv={table}")
    assert done.returncode == 0, done.stderr
    pattern = r"^video +([\d.]+)\n\n([\d.]+) frames/s in a video"
    found = re.search(pattern, done.stdout, re.MULTILINE)
    assert found is not None
    assert float(found[1]) == pytest.approx(1e3 / float(found[2]), rel=0.02)
    stage, milliseconds, *rest = table.read_text().splitlines()[1].split(",")
    assert (stage, rest) == ("video", ["", "", "", ""])  # several programs run at once
    assert float(milliseconds) == pytest.approx(float(found[1]), abs=0.1)


def test_unknown_stage_is_one_line() -> None:
    done = benchmark("--stages=reading")
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        "--stages holds 'reading'; stages are encode, read, fuse, transformer, decode, write, "
        "frame, memory frame, video"
    )
