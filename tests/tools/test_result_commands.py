"""merge_scores, first_annotations and visualize as a user runs them."""

import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from s3_jax.checkpoints.model import save_model
from s3_jax.conversion.weights import from_torch, torch_shapes
from s3_jax.media.mask_files import read_mask
from s3_jax.media.writers import write_scores
from tests.benchmarks.benchmark_files import SIZE, make_youtube, mask, write_masks
from tests.propagation.conftest import TINY
from tests.support import commands
from tests.support.weights import state_dict
from tests.tools.test_predict import ENVIRONMENT


def _run(module: str, **flags) -> subprocess.CompletedProcess:
    words = [f"--{name}={value}" for name, value in flags.items()]
    return commands.run(f"tools.{module}", *words, env=ENVIRONMENT)


def _fails(result: subprocess.CompletedProcess, message: str) -> None:
    assert result.returncode == 1, result.stdout
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def _make_run(folder: Path, data: Path, likely: float, checkpoint: str = "") -> Path:
    """Write the output of tools.predict, with a given probability of object 1 in the left half."""
    layout = {"sequences": None, "images": None, "annotations": None, "rule": None,
              "void": "default", "full_resolution": False}  # fmt: skip
    settings = {"dataset": "youtubevos2019-val", "size": 64}
    for name in ("a1", "b2"):
        for frame in ("00000", "00005", "00010"):
            write_masks(folder / "Annotations" / name, {frame: mask(1)})
            prob = np.full((2, *SIZE), 0.1, np.float32)
            prob[1, :, : SIZE[1] // 2] = likely
            prob[0] = 1 - prob[1]
            (folder / "scores" / name).mkdir(parents=True, exist_ok=True)
            write_scores(folder / "scores" / name / f"{frame}.npz", prob, (1,))
    values = {"settings": settings, "data_dir": str(data), "layout": layout}
    (folder / "run.json").write_text(json.dumps(values | {"checkpoint": checkpoint}))
    return folder


@pytest.fixture
def runs(tmp_path):
    data = make_youtube(tmp_path / "data")
    return [_make_run(tmp_path / name, data, p) for name, p in (("low", 0.3), ("high", 0.8))]


def test_merging_runs_decides_by_the_sum_and_packs(runs, tmp_path):
    low, high = runs
    result = _run("merge_scores", runs=f"{low},{high}", output=tmp_path / "merged")
    assert result.returncode == 0, result.stderr
    assert "6 frames of 2 runs merged" in result.stdout
    merged = read_mask(tmp_path / "merged/Annotations/b2/00010.png")
    assert merged.encoding == read_mask(low / "Annotations/b2/00010.png").encoding
    expected = np.zeros(SIZE, np.int32)
    expected[:, : SIZE[1] // 2] = 1  # 0.3 + 0.8 of 2 is more than the half
    assert np.array_equal(merged.ids, expected)
    with zipfile.ZipFile(tmp_path / "merged/submission.zip") as archive:
        assert "Annotations/a1/00005.png" in archive.namelist()
    record = json.loads((tmp_path / "merged/run.json").read_text())
    assert record["settings"]["merged"] == [str(low), str(high)]


def test_runs_that_do_not_belong_together(runs, tmp_path):
    low, high = runs
    (high / "scores/a1/00005.npz").unlink()
    output = tmp_path / "merged"
    _fails(_run("merge_scores", runs=f"{low},{high}", output=output), "a1 lacks 1 frames: 00005")
    _fails(_run("merge_scores", runs=low, output=output), "--runs needs two directories")
    _fails(_run("merge_scores", runs=f"{low},{tmp_path}", output=output), "has no run.json")
    assert not output.exists()


def test_first_annotations_of_a_whole_set(tmp_path):
    for name in ("v1", "v2"):
        masks = {"00000": mask(1), "00005": mask(1, 2), "00010": mask(1, 2)}
        write_masks(tmp_path / "val/Annotations" / name, masks)
    flags = {"annotations": tmp_path / "val", "output": tmp_path / "first"}
    result = _run("first_annotations", **flags)
    assert result.returncode == 0, result.stderr
    assert "4 objects in 4 masks of 2 videos" in result.stdout
    names = sorted(p.relative_to(tmp_path / "first").as_posix()
                   for p in (tmp_path / "first").rglob("*.png"))  # fmt: skip
    assert names == ["v1/00000.png", "v1/00005.png", "v2/00000.png", "v2/00005.png"]
    _fails(_run("first_annotations", **flags), "is not empty")


@pytest.mark.slow
def test_pictures_of_a_run(runs, tmp_path):
    checkpoint = tmp_path / "tiny"
    save_model(checkpoint, TINY, from_torch(state_dict(torch_shapes(TINY)), TINY))
    run = _make_run(tmp_path / "run", tmp_path / "data", 0.9, str(checkpoint))
    result = _run(
        "visualize", what="sheet,overlay,heat,queries", run=run, names="a1", frames=2,
        output=tmp_path / "pictures",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    written = sorted(p.name for p in (tmp_path / "pictures").iterdir())
    assert written == ["a1_heat_1.jpg", "a1_overlay.mp4", "a1_queries_1.jpg", "a1_queries_2.jpg",
                       "a1_sheet.jpg"]  # fmt: skip
    assert [Path(line).name for line in sorted(result.stdout.split())] == written


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"what": "sheets"}, "--what is sheets, but may be sheet, overlay, heat, queries"),
        ({"video": "x"}, "--masks is missing"),
        ({"run": "x"}, "has no run.json of tools.predict"),
    ],
)
def test_pictures_that_cannot_be_drawn(tmp_path, flags, message):
    _fails(_run("visualize", output=tmp_path, **flags), message)
