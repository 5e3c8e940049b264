"""Frames by number, in any order, equal those of a pass over the whole video."""

import numpy as np
import pytest

from s3_jax.errors import InputError
from s3_jax.media.image_files import read_image
from s3_jax.media.seeking import Frames
from s3_jax.media.video_files import open_video
from s3_jax.media.writers import write_picture
from tests.media.videos import moving_pictures, write_video_file

COUNT = 61


@pytest.fixture(scope="module", params=["mp4", "mkv", "ts", "avi"])
def video(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / f"clip.{request.param}"
    codec = "mpeg4" if request.param == "avi" else "libx264"
    write_video_file(path, moving_pictures(COUNT), codec)
    return open_video(path)


@pytest.mark.parametrize("megabytes", [0.0, 0.05, 100.0])
def test_any_order_gives_the_frames_of_a_pass(video, megabytes):
    images = [frame.image for frame in video.frames()]
    frames = Frames(video, megabytes)
    assert frames.count == len(images)
    order = np.random.default_rng(0).permutation(len(images))
    for index in (*order, *range(len(images)), *reversed(range(len(images)))):
        np.testing.assert_array_equal(frames.image(int(index)), images[index])


def test_what_is_kept_is_bounded(video):
    frames = Frames(video, megabytes=10 * 48 * 64 * 3 / 1e6)
    for index in range(COUNT):
        frames.image(index)
    assert len(frames._kept) == 10


def test_numbers_beyond_the_video_are_refused(video):
    with pytest.raises(InputError, match="has no frame 61: it has 61"):
        Frames(video).image(COUNT)


def test_a_damaged_frame_is_refused_and_others_are_not(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video_file(path, moving_pictures(40), "mpeg4")
    images = [frame.image for frame in open_video(path).frames()]
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 60] = bytes(60)
    path.write_bytes(content)
    frames = Frames(open_video(path, keep_going=True), megabytes=0.0)
    lost = []
    for index in range(39, -1, -1):
        try:
            np.testing.assert_array_equal(frames.image(index), images[index])
        except InputError as error:
            assert f"frame {index} is damaged" in str(error)
            lost.append(index)
    assert 1 <= len(lost) <= 12


def test_images_of_a_directory(tmp_path):
    pictures = moving_pictures(5)
    for index, picture in enumerate(pictures):
        write_picture(tmp_path / f"{index}.png", picture)
    (tmp_path / "3.png").write_bytes(b"no picture")
    frames = Frames(open_video(tmp_path))
    for index in (4, 0, 2):
        np.testing.assert_array_equal(frames.image(index), read_image(tmp_path / f"{index}.png"))
    with pytest.raises(InputError, match=r"3\.png"):
        frames.image(3)
