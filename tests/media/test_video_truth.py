"""Frames as they were recorded: bit depth, time, damage, and names that look like addresses."""

import gc
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
import pytest
from PIL import Image

from s3_jax.errors import InputError
from s3_jax.media.image_files import read_image
from s3_jax.media.overlay import write_video
from s3_jax.media.timeline import ranges
from s3_jax.media.video_files import open_video
from tests.media.videos import moving_pictures, write_video_file

RAMP = np.linspace(0, 1, 64 * 48).reshape(48, 64)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_the_depth_of_a_recording_is_used(tmp_path: Path, bits: int):
    values = (RAMP * (2**bits - 1)).astype(np.uint16)
    for i in range(3):
        Image.fromarray(values // (3 - i)).save(tmp_path / f"{i}.tif")
    frames = [frame.image for frame in open_video(tmp_path).frames()]
    assert frames[2].max() == 255
    assert abs(int(frames[0].max()) - 85) <= 1  # one scale for all frames


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_deep_colour_is_not_cut_to_its_high_bytes(tmp_path: Path, suffix: str):
    colours = np.stack([RAMP, RAMP / 2, RAMP / 4], -1) * 4095
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), colours[..., ::-1].astype(np.uint16))
    assert read_image(tmp_path / f"a.{suffix}").max(axis=(0, 1)).tolist() == [255, 127, 63]


@pytest.mark.parametrize("largest", [1.0, 255.0])
def test_floating_point_frames(tmp_path: Path, largest: float):
    Image.fromarray((RAMP * largest).astype(np.float32)).save(tmp_path / "a.tif")
    assert np.abs(read_image(tmp_path / "a.tif")[..., 0] - RAMP * 255).max() < 1.5
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(InputError, match="not finite"):
        read_image(tmp_path / "b.tif")


def test_nearly_black_frames_are_noticed(tmp_path: Path, caplog):
    Image.fromarray((RAMP * 15).astype(np.uint8)).save(tmp_path / "0.png")
    open_video(tmp_path)
    assert "nearly black (largest value 15 of 255)" in caplog.text


def _uneven(path: Path, times: list[int]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for time, picture in zip(times, moving_pictures(len(times)), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_uneven_frames_keep_their_times_in_an_overlay(tmp_path: Path):
    times = [0, 40, 80, 120, 1120, 2120, 2160, 2200]
    _uneven(tmp_path / "v.mkv", times)
    source = open_video(tmp_path / "v.mkv")
    assert source.times == [Fraction(t, 1000) for t in times]
    assert source.num_frames == 8
    write_video(tmp_path / "o.mp4", moving_pictures(8), Fraction(25), source.times)
    assert [round(float(t), 2) for t in open_video(tmp_path / "o.mp4").times] == [
        t / 1000 for t in times
    ]
    write_video_file(tmp_path / "even.mp4", moving_pictures(8))
    assert open_video(tmp_path / "even.mp4").times is None


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mkv", "mpeg4")])
def test_frames_behind_damage_keep_their_numbers(tmp_path: Path, suffix: str, codec: str):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(60)]
    path = tmp_path / f"a.{suffix}"
    write_video_file(path, pictures, codec)
    whole = [frame.image for frame in open_video(path).frames()]
    with av.open(str(path)) as container:
        keys = [p.pos for p in container.demux(video=0) if p.is_keyframe and p.size]
    data = bytearray(path.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 300] = rng.bytes(300)
    path.write_bytes(data)
    source = open_video(path, keep_going=True)
    seen = {}
    try:
        for frame in source.frames():
            seen[frame.index] = frame.image
    except InputError as error:
        assert len(keys) == 1  # nothing to go on from
        assert "damaged or cut off" in str(error)
    assert seen
    wrong = [i for i, image in seen.items() if not np.array_equal(image, whole[i])]
    assert len(wrong) <= 1  # the frame that is hit may decode without complaint
    if len(keys) > 1:
        assert sorted([*seen, *source.lost]) == list(range(60))
        assert source.lost


def test_a_damaged_image_is_passed_over_when_asked(tmp_path: Path):
    for i, picture in enumerate(moving_pictures(4)):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"")
    source = open_video(tmp_path, keep_going=True)
    assert [frame.index for frame in source.frames()] == [0, 1, 3]
    assert source.lost == [2]


def test_names_are_no_addresses(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video_file(tmp_path / "a.mp4", moving_pictures(3))
    for name in ("12:30.mp4", "http:"):
        Path(name).write_bytes((tmp_path / "a.mp4").read_bytes())
        assert len(list(open_video(Path(name)).frames())) == 3
    Path("list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://localhost:1/a.ts\n")
    with pytest.raises(InputError, match=r"list\.m3u8"):
        open_video(Path("list.m3u8"))


def test_side_data_of_unknown_kinds(tmp_path: Path):
    """EXIF in the frames of a camera's motion JPEG is an example."""
    data = b""
    for picture in moving_pictures(3):
        image = Image.fromarray(picture)
        exif = image.getexif()
        exif[271] = "maker"
        image.save(tmp_path / "f.jpg", exif=exif)
        data += (tmp_path / "f.jpg").read_bytes()
    (tmp_path / "v.mjpeg").write_bytes(data)
    assert len(list(open_video(tmp_path / "v.mjpeg").frames())) == 3


def test_ranges_read_as_people_write_them():
    assert ranges([7, 3, 8, 9]) == "3, 7 to 9"


def test_frames_are_let_go_without_the_garbage_collector(tmp_path: Path):
    """Reading side data of every frame would keep each frame, and two threads of its scaler."""
    write_video_file(tmp_path / "v.mp4", moving_pictures(30, 720, 1280))
    process, readings = psutil.Process(), []
    gc.collect()
    gc.disable()
    try:
        for _ in open_video(tmp_path / "v.mp4").frames():
            readings.append((process.num_threads(), process.memory_info().rss))
    finally:
        gc.enable()
    threads, memory = zip(*readings[5:], strict=True)
    assert len(threads) == 25
    assert max(threads) - min(threads) <= 2
    assert max(memory) - memory[0] < 20e6
