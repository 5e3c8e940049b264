"""The scoring command as a user runs it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks.sequences import (
    GOLDEN_CASES,
    GREY,
    read_golden,
    squares,
    write_sequence,
)
from tests.support import commands

ROOT = Path(__file__).parent.parent.parent


def score(*flags: str, module: str = "score") -> subprocess.CompletedProcess:
    return commands.run(f"tools.{module}", *flags, warnings_are_errors=True)


def scored(output: Path, *flags: str) -> dict:
    done = score(f"--output={output}", *flags)
    assert done.returncode == 0, done.stderr
    return json.loads((output / "scores.json").read_text())


def refused(tmp_path: Path, *flags: str) -> str:
    """Return the message of a refused command, which must write nothing and show no traceback."""
    output = tmp_path / "refused"
    done = score(f"--output={output}", *flags)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not output.exists() or not list(output.iterdir())
    return done.stderr


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """The recorded cases as folders `truth` and `ours`."""
    root = tmp_path_factory.mktemp("recordings")
    for case in GOLDEN_CASES:
        annotations, predictions, _ = read_golden(ROOT / "tests" / "goldens", case)
        write_sequence(root / "truth" / case, annotations)
        write_sequence(root / "ours" / case, predictions)
    return root


def test_recorded_cases_and_workers(recordings: Path, tmp_path: Path) -> None:
    flags = [f"--results={recordings / 'ours'}", f"--annotations={recordings / 'truth'}"]
    values = scored(tmp_path / "two", *flags, "--workers=2")
    sequences = values["results"][0]["sequences"]
    means = []
    for case in GOLDEN_CASES:
        _, _, expected = read_golden(ROOT / "tests" / "goldens", case)
        assert [int(i) for i in sequences[case]["objects"]] == list(expected)
        for object_id, recorded in expected.items():
            found = sequences[case]["objects"][str(object_id)]
            for name in "JF":
                np.testing.assert_allclose(found[name], recorded[name], rtol=0, atol=1e-6)
                statistics = [found[f"{name}-{s}"] for s in ("Mean", "Recall", "Decay")]
                np.testing.assert_allclose(
                    statistics, recorded[f"{name}_mean_recall_decay"], rtol=0, atol=1e-6
                )
            means.append(found["J&F-Mean"])
    assert values["results"][0]["overall"]["J&F-Mean"] == pytest.approx(np.mean(means))
    assert scored(tmp_path / "one", *flags, "--workers=1") == values
    for name in ("scores.csv", "report.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_results_are_compared_with_pictures(tmp_path: Path) -> None:
    for name, shift in (("a", 0), ("b", 4)):
        write_sequence(tmp_path / name / "clip", squares(8, (1, 2), shift=shift))
    truth = tmp_path / "set/Annotations"
    for frame in write_sequence(truth / "clip", squares(8, (1, 2))).iterdir():
        image = tmp_path / "set/JPEGImages/clip" / f"{frame.stem}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 40), (90, 90, 90)).save(image)
    output = tmp_path / "out"
    results = f"--results={tmp_path / 'a'},{tmp_path / 'b'}"
    done = score(results, f"--annotations={tmp_path / 'set'}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("DAVIS 2017: objects of the first frame; first and last frame")
    assert "J&F a  J&F b" in done.stdout
    page = (output / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 6  # three frames of two results
    with (output / "scores.csv").open(newline="") as file:
        overall = {r["result"]: r for r in csv.DictReader(file) if r["level"] == "overall"}
    assert float(overall["a"]["J-Mean"]) == 1
    assert 0.3 < float(overall["b"]["J-Mean"]) < 0.6


def test_youtube_vos_averages_seen_and_unseen(tmp_path: Path) -> None:
    masks = squares(4, (1, 2))
    masks[0][masks[0] == 2] = 0
    truth = write_sequence(tmp_path / "valid/Annotations/clip", masks)
    for mask in masks:
        mask[mask == 2] = 0
    write_sequence(tmp_path / "ours/Annotations/clip", masks)
    frames = sorted(path.stem for path in truth.iterdir())
    objects = {
        "1": {"category": "dog", "frames": frames},
        "2": {"category": "toaster", "frames": frames[1:]},
    }
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"videos": {"clip": {"objects": objects}}}))
    flags = [f"--results={tmp_path / 'ours'}", f"--annotations={tmp_path / 'valid'}"]
    values = scored(tmp_path / "out", *flags, "--protocol=youtube_vos", f"--meta={meta}")
    result = values["results"][0]
    assert result["G"] == 0.5
    assert (result["groups"]["seen"]["J-Mean"], result["groups"]["unseen"]["J-Mean"]) == (1, 0)
    assert "needs --meta" in refused(tmp_path, *flags, "--protocol=youtube_vos")


def test_black_and_white_masks_need_no_protocol(tmp_path: Path) -> None:
    write_sequence(tmp_path / "truth/clip", squares(5, (255,)), GREY)
    write_sequence(tmp_path / "ours/clip", squares(5))
    flags = [f"--results={tmp_path / 'ours'}", f"--annotations={tmp_path / 'truth'}"]
    values = scored(tmp_path / "out", *flags)
    assert values["protocol"] == "davis2016"
    assert values["results"][0]["overall"]["J&F-Mean"] == 1


def test_missing_masks_are_listed_or_scored_as_empty(tmp_path: Path) -> None:
    for name in ("bear", "bus", "cat"):
        write_sequence(tmp_path / "truth" / name, squares(6))
    write_sequence(tmp_path / "ours/bear", squares(6))
    write_sequence(tmp_path / "ours/bus", squares(6)).joinpath("00003.png").unlink()
    flags = [f"--results={tmp_path / 'ours'}", f"--annotations={tmp_path / 'truth'}"]
    message = refused(tmp_path, *flags)
    assert f"{tmp_path / 'ours/bus'} lacks 1 masks: 00003" in message
    assert f"{tmp_path / 'ours'} has no sequence cat" in message
    assert "--allow_missing" in message
    values = scored(tmp_path / "out", *flags, "--allow_missing")
    sequences = values["results"][0]["sequences"]
    assert [sequences[n]["J-Mean"] for n in ("bear", "bus", "cat")] == [1, 0.75, 0]
    assert "5 masks in 2 sequences" in values["notes"][0]
    split = tmp_path / "val.txt"
    split.write_text("bear\n")
    chosen = scored(tmp_path / "out", *flags, f"--sequences={split}")
    assert list(chosen["results"][0]["sequences"]) == ["bear"]
    split.write_text("bear\nbears\n")
    assert "bears; did you mean bear?" in refused(tmp_path, *flags, f"--sequences={split}")


def test_input_that_cannot_be_scored_is_named(tmp_path: Path) -> None:
    write_sequence(tmp_path / "truth/clip", squares(5))
    write_sequence(tmp_path / "ours/clip", squares(5, (6,)))
    write_sequence(tmp_path / "small/clip", squares(5, size=(20, 64)))
    write_sequence(tmp_path / "first/clip", squares(1))
    ours, truth = f"--results={tmp_path / 'ours'}", f"--annotations={tmp_path / 'truth'}"
    assert "ours/clip/00001.png has object 6" in refused(tmp_path, ours, truth)
    small = f"--results={tmp_path / 'small'}"
    assert "is 64 x 20, but its annotation is 64 x 40" in refused(tmp_path, small, truth)
    first = f"--annotations={tmp_path / 'first'}"
    assert "annotations on the first frame only" in refused(tmp_path, ours, first)
    assert "--results is missing" in refused(tmp_path, truth)


def test_help_teaches() -> None:
    command = [sys.executable, "-W", "error", "-m", "tools.score", "--help"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300).stdout
    for word in ("--results=DIR", "youtube_vos", "--allow_missing", "report.html", "Examples"):
        assert word in text


def test_benchmark_agrees_with_the_straightforward_way() -> None:
    done = score("--frames=2", "--repeats=3", module="benchmark_metrics")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[2:-1]]
    assert [row[0] for row in rows] == ["small", "medium", "large", "three"]
    assert all(float(row[-1]) < 1e-12 for row in rows), done.stdout
    assert float(done.stdout.split()[-1]) > 3, done.stdout


def test_first_mask_copied_on_the_davis_development_sequences(tmp_path: Path) -> None:
    shared = Path(os.environ.get("S3_JAX_SHARED", ROOT.parent / "shared"))
    annotations = shared / "data/davis2016_dev/Annotations/480p"
    if not annotations.is_dir():
        pytest.skip(f"no DAVIS sequences in {annotations}")
    for sequence in annotations.iterdir():
        folder = tmp_path / "first" / sequence.name
        folder.mkdir(parents=True)
        frames = sorted(sequence.iterdir())
        for frame in frames:
            (folder / frame.name).symlink_to(frames[0])
    flags = [f"--results={tmp_path / 'first'}", f"--annotations={annotations}"]
    values = scored(tmp_path / "out", *flags, "--worst_frames=0")
    assert values["protocol"] == "davis2016"
    assert round(100 * values["results"][0]["overall"]["J&F-Mean"], 1) == 26.0
