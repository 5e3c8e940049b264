import subprocess
from pathlib import Path

import numpy as np
import pytest

from s3_jax.data.synthetic import synthetic_video
from s3_jax.media.mask_files import read_mask
from s3_jax.media.video_files import open_video
from tests.support import commands

ROOT = Path(__file__).parents[2]


def _run(**flags) -> subprocess.CompletedProcess:
    words = [f"--{name}={value}" for name, value in flags.items()]
    return commands.run("tools.make_synthetic_video", *words)


def test_frames_masks_and_video_file(tmp_path):
    output = tmp_path / "video"
    sizes = {"frames": 4, "height": 49, "width": 64}
    result = _run(output=output, objects=3, seed=5, png=True, video_file=True, **sizes)
    assert result.returncode == 0, result.stderr
    frames = list(open_video(output / "frames").frames())
    expected = list(synthetic_video(4, 49, 64, 3, seed=5))
    for frame, (picture, ids) in zip(frames, expected, strict=True):
        assert np.array_equal(frame.image, picture)
        assert np.array_equal(read_mask(output / "masks" / f"{frame.name}.png").ids, ids)
    assert len(list(open_video(output / "video.mp4").frames())) == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "give --output=DIRECTORY"),
        ({"output": ROOT}, "is not an empty directory"),
        ({"output": "{tmp}/file/x"}, "cannot write"),
        ({"output": "{tmp}/x", "objects": 255, "height": 16, "width": 16}, "no room for 255"),
    ],
)
def test_bad_flags_are_one_clear_line(tmp_path, flags, message):
    (tmp_path / "file").touch()
    flags = {name: str(value).format(tmp=tmp_path) for name, value in flags.items()}
    result = _run(**flags)
    assert result.returncode == 1
    assert result.stderr.startswith("tools.make_synthetic_video: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
