from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3_jax.errors import InputError
from s3_jax.media.image_files import list_images, natural_key, read_image, trailing_number


def test_natural_order():
    names = ["f10.png", "f9.png", "F1.png", "a2b10.png", "a2b9.png", "7.png", "07.png", "12.png"]
    expected = ["07.png", "7.png", "12.png", "a2b9.png", "a2b10.png", "F1.png", "f9.png", "f10.png"]
    assert sorted(names, key=natural_key) == expected


def test_trailing_number():
    assert [trailing_number(s) for s in ("00012", "frame_7", "v2_x", "")] == [12, 7, None, None]


def test_only_images_count_and_others_are_named_once(tmp_path: Path, caplog):
    for name in ("1.PNG", "2.jpeg", ".hidden.png", "notes.txt", "more.csv"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["1.PNG", "2.jpeg"]
    assert len(caplog.records) == 1
    assert "folder.png, more.csv, notes.txt" in caplog.text
    assert "hidden" not in caplog.text


def test_directories_without_images_say_what_is_there(tmp_path: Path):
    with pytest.raises(InputError, match="holds no images"):
        list_images(tmp_path)
    (tmp_path / "bear").mkdir()
    with pytest.raises(InputError, match="but the directories bear"):
        list_images(tmp_path)


def test_equal_stems_are_refused(tmp_path: Path):
    for name in ("1.png", "1.jpg"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"1\.jpg and 1\.png"):
        list_images(tmp_path)


def test_every_kind_of_image_becomes_rgb(tmp_path: Path):
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    for mode in ("L", "P", "RGBA", "LA", "1", "CMYK"):
        Image.fromarray(grey).convert(mode).save(tmp_path / f"{mode}.tiff")
        image = read_image(tmp_path / f"{mode}.tiff")
        assert image.shape == (6, 8, 3)
        assert image.dtype == np.uint8
    assert np.array_equal(read_image(tmp_path / "L.tiff")[..., 1], grey)


def test_sixteen_bit_images_are_scaled_not_clipped(tmp_path: Path):
    grey = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png")[..., 0], grey >> 8)


def test_orientation_is_honoured(tmp_path: Path):
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:3] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.rot90(pixels, -1))


def test_missing_file(tmp_path: Path):
    with pytest.raises(InputError, match=r"gone\.png: No such file"):
        read_image(tmp_path / "gone.png")
