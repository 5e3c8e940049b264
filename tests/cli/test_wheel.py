"""The wheel: what is in it, and that it works from an empty directory, without the checkout."""

import os
import re
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from s3_jax.checkpoints.model import load_model

ROOT = Path(__file__).parents[2]
SOURCES = ("s3_jax", "configs", "LICENSE", "README.md", "pyproject.toml", "setup.py")
UNWANTED = shutil.ignore_patterns("__pycache__", "*.egg-info")


def _call(*words: object, folder: Path, **environment: str) -> str:
    """Standard output of a command; it has to succeed."""
    done = subprocess.run(
        [str(word) for word in words], cwd=folder, capture_output=True, text=True, timeout=900,
        env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built as pip does, from a copy so that nothing is left in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=UNWANTED)
        else:
            shutil.copy(source, copy)
    flags = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    _call(sys.executable, "-m", "pip", "wheel", *flags, "--wheel-dir=dist", ".", folder=copy)
    return next((copy / "dist").glob("s3_jax-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The programs of an environment with the wheel, and with the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    _call(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    python = folder / "bin/python"
    find = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = Path(_call(python, "-c", find, folder=folder).strip())
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    pip = (sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet")
    _call(*pip, "--no-deps", "--no-index", "--force-reinstall", wheel, folder=folder)
    return folder / "bin"


def test_every_file_of_the_package_is_in_it_and_nothing_else(wheel):
    files = [path for room in ("s3_jax", "configs") for path in (ROOT / room).rglob("*")]
    paths = [path.relative_to(ROOT).as_posix() for path in files if path.is_file()]
    expected = {re.sub("^configs/", "s3_jax/configs/", path) for path in paths}
    expected -= {path for path in expected if "__pycache__" in path}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry = next(n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert archive.read(entry).decode().split() == [
            "[console_scripts]",
            "s3",
            "=",
            "s3_jax.cli.main:main",
        ]
    assert names == expected


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("empty")


@pytest.mark.slow
def test_configurations_are_found_by_name(installed, empty):
    code = "from s3_jax.cli.config_flag import find_config; print(find_config('train_s3_vitb'))"
    found = _call(installed / "python", "-c", code, folder=empty)
    assert found.strip().endswith("site-packages/s3_jax/configs/published.py:s3_vitb,base")
    assert not found.startswith(str(ROOT))


@pytest.mark.slow
def test_segment_score_and_convert(installed, empty):
    s3 = installed / "s3"
    cache = {"S3_JAX_CACHE": str(ROOT / ".cache/xla"), "JAX_PLATFORMS": "cpu"}
    size = ("--frames=4", "--height=64", "--width=96", "--objects=1")
    _call(s3, "synthetic-video", "--output=clip", *size, folder=empty)
    segment = ("--video=clip/frames", "--masks=clip/masks/00000.png", "--checkpoint=s3_lite")
    said = _call(s3, "segment", *segment, "--output=out/masks/clip", folder=empty, **cache)
    assert "4 frames of 96x64" in said
    (empty / "results").mkdir()
    (empty / "out/masks/clip/masks").rename(empty / "results/clip")
    (empty / "truth").mkdir()
    shutil.copytree(empty / "clip/masks", empty / "truth/clip")
    scored = _call(s3, "score", "--results=results", "--annotations=truth", "--output=scores",
                   folder=empty)  # fmt: skip
    assert "J&F" in scored
    assert (empty / "scores/report.html").stat().st_size > 0
    _call(s3, "convert", "--to_pytorch", "--input=s3_lite", "--output=lite.pth", folder=empty)
    _call(s3, "convert", "--input=lite.pth", "--output=again", folder=empty)
    ours, theirs = load_model("s3_lite")[1], load_model(empty / "again")[1]
    query = ("params", "object_transformer", "query_init")
    for name in query:
        ours, theirs = ours[name], theirs[name]
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_training_by_name(installed, empty):
    flags = ("--config=smoke", "--workdir=run", "--config.order=('static',)")
    said = _call(installed / "s3", "train", *flags, "--config.stages.static.steps=2", folder=empty)
    assert "finished 2 steps" in said


@pytest.mark.slow
def test_the_python_lines_of_the_readme(installed, empty):
    page = (ROOT / "README.md").read_text()
    lines = page.partition("From Python:\n\n```python\n")[2].partition("```")[0]
    before = """
import numpy as np
frames = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), np.uint8)
first_mask = np.zeros((64, 96), np.int32)
first_mask[20:40, 30:60] = 1
"""
    after = "\nassert ids.shape == (64, 96)"
    program = before + lines + after
    _call(installed / "python", "-c", program, folder=empty, JAX_PLATFORMS="cpu")
