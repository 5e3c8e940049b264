"""The multi-object validation set as files, and the identities that results on it keep."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3_jax.cli.crossing_videos import HELD_OUT
from tests.support import commands

ROOT = Path(__file__).parents[2]


def _run(**flags: object) -> subprocess.CompletedProcess:
    words = [f"--{name}={value}" for name, value in flags.items()]
    return commands.run("tools.crossing_videos", *words)


def _save(ids: np.ndarray, images: Path, masks: Path, name: str) -> None:
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids * np.uint8(90)).save(images / f"{name}.jpg")
    Image.fromarray(ids).save(masks / f"{name}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs that stand still, in videos and photographs."""
    root = tmp_path_factory.mktemp("data")
    columns, rows = np.meshgrid(np.arange(160), np.arange(120))
    disc = ((columns - 80) ** 2 + (rows - 60) ** 2 < 25**2).astype(np.uint8)
    videos, stills = root / "davis2016_train", root / "stills/voc2007_instances"
    for video in HELD_OUT:
        for frame in range(4):
            _save(disc, videos / "JPEGImages" / video, videos / "Annotations" / video, f"{frame}")
    for number in range(2):
        _save(disc * 2, stills / "images", stills / "masks", f"{number}")
    return root


def test_the_videos_are_whole_and_true_masks_keep_all_identities(data: Path, tmp_path) -> None:
    made = _run(data_root=data, output=tmp_path / "set", videos=2, frames=4)
    assert made.returncode == 0, made.stderr
    masks = sorted((tmp_path / "set" / "Annotations").rglob("*.png"))
    images = sorted((tmp_path / "set" / "JPEGImages").rglob("*.jpg"))
    assert [m.stem for m in masks] == [i.stem for i in images]
    assert len(masks) == 2 * 4
    first = [np.unique(np.array(Image.open(mask))) for mask in masks[::4]]
    assert [ids.tolist() for ids in first] == [[0, 1, 2], [0, 1, 2, 3]]
    annotations = tmp_path / "set" / "Annotations"
    scored = _run(annotations=annotations, results=annotations)
    assert scored.returncode == 0, scored.stderr
    assert scored.stdout.split() == ["crossing00", "1.000", "crossing01", "1.000", "mean", "1.000"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "give --data_root and --output, or --annotations and --results"),
        ({"data_root": "/nowhere", "output": "{tmp}/x"}, "/nowhere/davis2016_train"),
        ({"data_root": "/nowhere", "output": ROOT}, "is not an empty directory"),
    ],
)
def test_bad_input_is_told_in_one_line(flags: dict, message: str, tmp_path: Path) -> None:
    result = _run(**{key: str(value).format(tmp=tmp_path) for key, value in flags.items()})
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
