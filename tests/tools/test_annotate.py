"""`s3 annotate` as a command: its output, and the inputs that it refuses."""

import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from tests.annotation.browser import ROOT, Command
from tests.annotation.projects import SIZE
from tests.media.videos import moving_pictures, write_video_file


def _fails(*words: object) -> str:
    """Return the message of a command that ends at once."""
    done = subprocess.run(
        [sys.executable, "-m", "s3_jax", "annotate", "--nobrowser", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    return done.stderr


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video_file(path, moving_pictures(5, *SIZE))
    return path


def test_it_needs_one_video():
    assert _fails() == "s3 annotate: give one video: s3 annotate cats.mp4\n"


def test_a_project_is_open_once_and_of_one_video(video, tmp_path):
    output = f"--output={tmp_path / 'project'}"
    command = Command(video, output, "--port=0")
    assert "open in another process" in _fails(video, output, "--port=0")
    command.kill()
    other = tmp_path / "other.mp4"
    write_video_file(other, moving_pictures(6, *SIZE))
    assert "the project of another video" in _fails(other, output, "--port=0")


def test_serving_the_network_is_warned_of(video, tmp_path):
    command = Command(video, f"--output={tmp_path / 'project'}", "--port=0", "--host=0.0.0.0")
    port = command.address.split(":")[2].split("/")[0]
    local = command.address.replace("0.0.0.0", "127.0.0.1")
    with urllib.request.urlopen(local) as page:
        assert b"<title>s3 annotate</title>" in page.read()
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/")
    command.kill()
    assert "everyone on the network" in command.warned
