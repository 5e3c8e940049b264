"""The baselines as a user runs them."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from s3_jax.media.mask_files import read_mask
from tests.benchmarks.benchmark_files import make_davis
from tests.support import commands

ROOT = Path(__file__).parents[2]
QUICK = ("--method=first_mask", "--method=optical_flow")


def _run(module: str, *flags: str) -> subprocess.CompletedProcess:
    return commands.run(module, *flags)


@pytest.mark.parametrize(("year", "protocol"), [("2016", "DAVIS 2016"), ("2017", "DAVIS 2017")])
def test_results_are_what_score_reads(tmp_path, year, protocol):
    data = make_davis(tmp_path / "davis", {"bear": 4, "bus": 5}, year=year)
    output = tmp_path / "out"
    result = _run("tools.baselines", f"--data_dir={data}", f"--output={output}", *QUICK)
    assert result.returncode == 0, result.stderr
    masks = data / "Annotations/480p"
    for video, count in (("bear", 4), ("bus", 5)):
        first = read_mask(masks / video / "00000.png")
        for method in ("first_mask", "optical_flow"):
            files = sorted((output / method / video).iterdir())
            assert [path.stem for path in files] == [f"{t:05d}" for t in range(count)]
            found = read_mask(files[0])
            assert np.array_equal(found.ids, first.ids)
            assert found.encoding == first.encoding
    command = result.stdout.split("python -m ")[1].split()
    assert command[0] == "tools.score"
    scored = _run(*command[:-1], f"--output={tmp_path / 'scores'}")
    assert scored.returncode == 0, scored.stderr
    assert protocol in scored.stdout
    assert "optical_flow" in scored.stdout


def test_errors_are_one_clear_line(tmp_path):
    data = make_davis(tmp_path / "davis", {"bear": 3})
    (tmp_path / "out/first_mask").mkdir(parents=True)
    for flags, message in (
        ((f"--data_dir={data}",), "--output is missing"),
        ((f"--data_dir={tmp_path}", "--output=x"), "the directory of images is not there"),
        ((f"--data_dir={data}", f"--output={tmp_path / 'out'}"), "exists: choose another --output"),
    ):
        result = _run("tools.baselines", *flags)
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1, result.stderr
        assert message in result.stderr
