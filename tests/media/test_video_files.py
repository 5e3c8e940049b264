from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3_jax.errors import InputError
from s3_jax.media.video_files import open_video
from tests.media.videos import moving_pictures, write_video_file

FORMATS = [("mp4", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx-vp9")]


def _save_frames(folder: Path, names: list[str], height: int = 12, width: int = 16) -> list:
    folder.mkdir(exist_ok=True)
    pictures = moving_pictures(len(names), height, width)
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(folder / name)
    return pictures


def _closest(image: np.ndarray, candidates: list[np.ndarray]) -> int:
    return int(np.argmin([np.abs(image.astype(float) - c).mean() for c in candidates]))


def _read_until_error(source) -> tuple[int, str]:
    count = 0
    with pytest.raises(InputError) as caught:
        for _ in source.frames():
            count += 1
    message = str(caught.value)
    assert "\n" not in message
    return count, message


@pytest.mark.parametrize(("suffix", "codec"), FORMATS)
def test_video_file_gives_every_frame_in_order(tmp_path, suffix, codec):
    pictures = moving_pictures(20)
    write_video_file(tmp_path / f"a.{suffix}", pictures, codec)
    source = open_video(tmp_path / f"a.{suffix}")
    frames = list(source.frames())
    assert source.size == (48, 64)
    assert source.num_frames == 20
    assert float(source.frame_rate) == pytest.approx(29.97, abs=0.01)
    assert [f.name for f in frames] == [f"{i:05d}" for i in range(20)]
    assert [_closest(f.image, pictures) for f in frames] == list(range(20))
    later = list(source.frames(start=13))
    assert [f.index for f in later] == list(range(13, 20))
    assert np.array_equal(later[0].image, frames[13].image)


def test_exact_rate_is_kept(tmp_path):
    write_video_file(tmp_path / "a.mp4", moving_pictures(5), rate=Fraction(24000, 1001))
    assert open_video(tmp_path / "a.mp4").frame_rate == Fraction(24000, 1001)


def test_ticks_are_not_taken_for_frames(tmp_path):
    write_video_file(tmp_path / "a.mkv", moving_pictures(5), rate=Fraction(1000))
    assert open_video(tmp_path / "a.mkv").frame_rate is None


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_rotation_metadata_is_honoured(tmp_path, rotation, mirrored):
    pictures = moving_pictures(3)
    write_video_file(tmp_path / "a.mp4", pictures, rotation=rotation, mirrored=mirrored)
    source = open_video(tmp_path / "a.mp4")
    turned = [np.rot90(pictures[0], turns) for turns in range(4)]
    candidates = [t for t in turned if t.shape[:2] == source.size]
    candidates += [t[:, ::-1] for t in candidates]
    expected = np.rot90(pictures[0], rotation // 90)
    expected = expected[:, ::-1] if mirrored else expected
    first = next(source.frames()).image
    assert np.array_equal(candidates[_closest(first, candidates)], expected)


@pytest.mark.parametrize(("suffix", "codec"), FORMATS)
def test_truncated_video_gives_what_decodes_then_an_error(tmp_path, suffix, codec):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(60)]
    write_video_file(tmp_path / f"a.{suffix}", pictures, codec)
    whole = [f.image for f in open_video(tmp_path / f"a.{suffix}").frames()]
    data = (tmp_path / f"a.{suffix}").read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(data[: len(data) * 6 // 10])
    images = []
    with pytest.raises(InputError, match=f"cut.{suffix} is damaged or cut off after frame"):
        for frame in open_video(cut).frames():
            images.append(frame.image)
    assert 10 < len(images) < 50
    assert all(np.array_equal(a, b) for a, b in zip(images, whole, strict=False))


@pytest.mark.parametrize(("suffix", "codec"), FORMATS[:3])
def test_damage_in_the_middle_ends_the_video_there(tmp_path, suffix, codec):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(60)]
    write_video_file(tmp_path / f"a.{suffix}", pictures, codec)
    whole = [f.image for f in open_video(tmp_path / f"a.{suffix}").frames()]
    data = bytearray((tmp_path / f"a.{suffix}").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = rng.bytes(4000)
    (tmp_path / f"bad.{suffix}").write_bytes(data)
    images = []
    with pytest.raises(InputError, match="damaged or cut off"):
        for frame in open_video(tmp_path / f"bad.{suffix}").frames():
            images.append(frame.image)
    assert 5 < len(images) < 55
    # The codecs have no checksums: the first frame that is hit may decode without complaint.
    wrong = [not np.array_equal(a, b) for a, b in zip(images, whole, strict=False)]
    assert sum(wrong) <= 1


def test_things_that_are_no_video(tmp_path):
    with pytest.raises(InputError, match="nothing does not exist"):
        open_video(tmp_path / "nothing")
    for name in ("text.mp4", "text.txt", "text.avi"):
        (tmp_path / name).write_text("not a video\n" * 100)
        with pytest.raises(InputError, match=name):
            open_video(tmp_path / name)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(InputError, match=r"empty\.mp4"):
        open_video(tmp_path / "empty.mp4")


def test_video_file_without_a_single_frame(tmp_path):
    write_video_file(tmp_path / "a.mp4", moving_pictures(3))
    data = (tmp_path / "a.mp4").read_bytes()
    position = data.index(b"mdat") + 4
    (tmp_path / "b.mp4").write_bytes(data[:position])  # the index, and none of the data
    with pytest.raises(InputError, match=r"b\.mp4"):
        open_video(tmp_path / "b.mp4")


def test_audio_file_holds_no_video(tmp_path):
    import av

    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match=r"a\.wav holds no video"):
        open_video(tmp_path / "a.wav")


def test_directory_in_natural_order_with_exact_pixels(tmp_path):
    names = ["f1.png", "f2.png", "f10.bmp", "f11.tiff"]
    pictures = _save_frames(tmp_path / "v", names)
    source = open_video(tmp_path / "v")
    assert source.frame_names == ["f1", "f2", "f10", "f11"]
    assert (source.num_frames, source.size, source.frame_rate) == (4, (12, 16), None)
    frames = list(source.frames())
    assert [(f.index, f.name) for f in frames] == [(0, "f1"), (1, "f2"), (2, "f10"), (3, "f11")]
    for frame, picture in zip(frames, pictures, strict=True):
        assert np.array_equal(frame.image, picture)
    assert [f.index for f in source.frames(start=2)] == [2, 3]


@pytest.mark.parametrize("name", ["2.jpg", "2.png", "2.webp"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_damaged_image_is_named_after_the_frames_before_it(tmp_path, name, damage):
    _save_frames(tmp_path / "v", ["0.png", "1.png", name, "3.png"], 64, 64)
    file = tmp_path / "v" / name
    data = file.read_bytes()
    damaged = {"cut": data[: len(data) // 2], "garbage": b"x" * 500, "empty": b""}[damage]
    file.write_bytes(damaged)
    count, message = _read_until_error(open_video(tmp_path / "v"))
    assert count == 2
    assert str(file) in message


def test_frames_of_another_size_are_refused(tmp_path):
    _save_frames(tmp_path / "v", ["0.png", "1.png"])
    Image.new("RGB", (20, 10)).save(tmp_path / "v" / "2.png")
    count, message = _read_until_error(open_video(tmp_path / "v"))
    assert count == 2
    assert "2.png is 20x10 but the video starts with 16x12" in message


def test_gaps_in_the_numbering_are_reported(tmp_path, caplog):
    _save_frames(tmp_path / "v", [f"{i:05d}.png" for i in (0, 5, 10, 25, 30, 40)])
    source = open_video(tmp_path / "v")
    assert "frames seem to be missing: 15 to 20, 35" in caplog.text
    assert len(list(source.frames())) == 6


def test_even_steps_are_no_gaps(tmp_path, caplog):
    _save_frames(tmp_path / "v", [f"{i:05d}.png" for i in (0, 5, 10, 15)])
    open_video(tmp_path / "v")
    assert not caplog.text
