"""Masks as people have them: doubtful ones are refused, with the flag that settles the doubt."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from s3_jax.conversion.errors import TorchFileError
from s3_jax.conversion.torch_file import read_tensors
from s3_jax.errors import InputError
from s3_jax.media.json_files import read_json
from s3_jax.media.mask_files import MaskConfig, MaskFiles, read_mask
from s3_jax.media.mask_gate import describe, findings
from s3_jax.media.palette import voc_palette
from s3_jax.media.video_files import open_video

HEIGHT, WIDTH = 96, 160
BOX = (30, 20, 80, 60)


def _disc(mode: str, inside: object, outside: object) -> Image.Image:
    image = Image.new(mode, (WIDTH, HEIGHT), outside)
    ImageDraw.Draw(image).ellipse(BOX, fill=inside)
    return image


def _palette(ids: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.frombytes("P", ids.shape[::-1], ids.astype(np.uint8).tobytes())
    image.putpalette(colours)
    return image


TRUE = np.asarray(_disc("L", 255, 0)) > 0


def _soft(mode: str, inside: object, outside: object) -> Image.Image:
    return _disc(mode, inside, outside).filter(ImageFilter.GaussianBlur(2))


def _in_alpha(colour: tuple[int, int, int], soft: bool = False) -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT), colour)
    image.putalpha(_soft("L", 255, 0) if soft else _disc("L", 255, 0))
    return image


def _resized() -> Image.Image:
    return _disc("L", 255, 0).resize((WIDTH * 2, HEIGHT * 2), Image.Resampling.BILINEAR)


DOUBTFUL = {
    "soft grey": (_soft("L", 255, 0), "--threshold=128"),
    "soft red": (_soft("RGB", (255, 0, 0), 0), "--threshold=128"),
    "resized": (_resized(), "--threshold=128"),
    "dithered": (_disc("RGB", (200, 40, 90), 0).convert("P"), "--objects=1"),
    "half transparent": (_in_alpha((255, 255, 255), soft=True), "--threshold=128"),
    "swapped palette": (_palette(~TRUE, [255, 0, 0, 0, 0, 0]), "--background=1"),
    "white background": (_disc("L", 0, 255), "--background=255"),
    "white background in colour": (_disc("RGB", (0, 0, 0), (255, 255, 255)), "--background=255"),
    "nearly all": (_palette(np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) > 99,
                            voc_palette().ravel().tolist()), "--background=1"),
}  # fmt: skip


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_doubtful_mask_stops_and_the_named_flag_settles_it(tmp_path: Path, name: str):
    image, flag = DOUBTFUL[name]
    image.save(tmp_path / "m.png")
    with pytest.raises(InputError, match=r"m\.png: ") as caught:
        MaskFiles(tmp_path / "m.png", None, config=MaskConfig())
    assert flag in str(caught.value)
    assert "\n" not in str(caught.value)
    setting, value = flag[2:].split("=")
    masks = MaskFiles(tmp_path / "m.png", None, config=MaskConfig(**{setting: int(value)}))
    (object_id,) = masks.first.object_ids
    if name != "nearly all":
        expected = TRUE.repeat(2, 0).repeat(2, 1) if name == "resized" else TRUE
        found = masks.first.ids == object_id
        assert (found & expected).sum() / (found | expected).sum() > 0.9
    assert object_id <= masks.first.encoding.largest_id


ORDINARY = {
    "palette": _palette(np.kron(np.arange(6).reshape(2, 3), np.ones((48, 53))),
                        voc_palette().ravel().tolist()),
    "grey": _disc("L", 7, 0),
    "black and white": _disc("L", 255, 0),
    "bilevel": _disc("1", 1, 0),
    "deep": Image.fromarray((TRUE * 3000).astype(np.uint16)),
    "colour": _disc("RGB", (4, 3, 2), 0),
    "opaque": _disc("RGBA", (9, 9, 9, 255), (0, 0, 0, 255)),
    "adjacent": _palette(TRUE * 1 + np.roll(TRUE, 30, 1) * 2, voc_palette().ravel().tolist()),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_masks_pass_without_a_word(tmp_path: Path, name: str, caplog):
    ORDINARY[name].save(tmp_path / "m.png")
    MaskFiles(tmp_path / "m.png", None, config=MaskConfig())
    assert not caplog.text


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (255, 0, 0)])
def test_an_object_drawn_in_the_alpha_channel_is_what_is_opaque(tmp_path: Path, colour):
    _in_alpha(colour).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    assert np.array_equal(mask.ids != 0, TRUE)
    assert "drawn in the alpha channel" in describe(mask)
    Image.new("RGBA", (WIDTH, HEIGHT), (9, 9, 9, 0)).save(tmp_path / "none.png")
    with pytest.raises(InputError, match="every pixel is transparent"):
        read_mask(tmp_path / "none.png")


def test_transparent_pixels_are_background(tmp_path: Path):
    red = _disc("RGBA", (255, 0, 0, 255), (255, 255, 255, 0))
    red.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png").ids == 255, TRUE)
    indexed = _palette(np.where(TRUE, 2, 1), voc_palette().ravel().tolist())
    indexed.save(tmp_path / "p.png", transparency=1)
    assert np.array_equal(read_mask(tmp_path / "p.png").ids == 2, TRUE)


def test_zero_confirms_a_background(tmp_path: Path):
    DOUBTFUL["white background"][0].save(tmp_path / "m.png")
    masks = MaskFiles(tmp_path / "m.png", None, config=MaskConfig(background=0))
    assert np.array_equal(masks.first.ids == 255, ~TRUE)


def test_several_soft_objects_are_rounded_to_their_colours(tmp_path: Path):
    image = _disc("RGB", (255, 0, 0), 0)
    ImageDraw.Draw(image).rectangle((100, 30, 140, 80), fill=(0, 0, 255))
    image.filter(ImageFilter.GaussianBlur(1)).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", config=MaskConfig(objects=2))
    assert mask.object_ids == (255, 255 * 65536)
    assert abs((mask.ids == 255).sum() / TRUE.sum() - 1) < 0.1
    assert not list(findings(mask, MaskConfig(objects=2)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"threshold": 0}, "--threshold is 0"),
        ({"threshold": 9, "objects": 2}, "exclude each other"),
        ({"background": 7}, "has no such pixel"),
        ({"objects": 3}, "--objects is 3, but .* has 1"),
    ],
)
def test_statements_that_do_not_fit_are_refused(tmp_path: Path, config, message):
    _disc("L", 255, 0).save(tmp_path / "m.png")
    with pytest.raises(InputError, match=message):
        read_mask(tmp_path / "m.png", config=MaskConfig(**config))


def test_what_was_read_is_told_in_words(tmp_path: Path):
    ORDINARY["adjacent"].save(tmp_path / "0.png")
    assert describe(read_mask(tmp_path / "0.png")).startswith("3 objects: 1 (")
    _disc("RGB", (255, 0, 0), 0).save(tmp_path / "1.png")
    assert describe(read_mask(tmp_path / "1.png")) == "1 object: 255 = #ff0000 (11 % of the frame)"


def test_another_encoding_with_other_ids_is_refused(tmp_path: Path):
    _disc("L", 255, 0).save(tmp_path / "0.png")
    _palette(TRUE * 1, voc_palette().ravel().tolist()).save(tmp_path / "1.png")
    with pytest.raises(InputError, match=r"1\.png is a palette mask with object 1, but the first"):
        MaskFiles(tmp_path, None, config=MaskConfig())


def test_masks_numbered_from_one(tmp_path: Path, caplog):
    _disc("L", 255, 0).save(tmp_path / "frame_0001.png")
    assert MaskFiles(tmp_path, None).first_index == 1
    assert "pass --first_number=1" in caplog.text
    caplog.clear()
    assert MaskFiles(tmp_path, None, first_number=1).first_index == 0
    assert not caplog.text


def test_a_picture_beyond_the_budget_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch):
    _disc("L", 255, 0).save(tmp_path / "m.png")
    monkeypatch.setenv("S3_JAX_LIMITS", "megapixels=0.01")
    with pytest.raises(InputError, match=r"m\.png has 160x96 pixels.*S3_JAX_LIMITS=megapixels="):
        read_mask(tmp_path / "m.png")


def test_a_png_chunk_longer_than_its_file_is_refused(tmp_path: Path):
    _disc("L", 255, 0).save(tmp_path / "m.png")
    data = (tmp_path / "m.png").read_bytes()
    bomb = data[:33] + b"\xff\xff\xff\xf0tEXt" + data[33:]
    (tmp_path / "m.png").write_bytes(bomb)
    with pytest.raises(InputError, match="longer than the file"):
        read_mask(tmp_path / "m.png")


def test_pixels_of_a_png_that_claim_gigabytes_are_refused(tmp_path: Path):
    _disc("L", 255, 0).save(tmp_path / "m.png")
    data = (tmp_path / "m.png").read_bytes()
    (tmp_path / "m.png").write_bytes(data[:33] + b"\x80" + data[34:])  # the length of IDAT
    with pytest.raises(InputError, match="longer than the file"):
        read_mask(tmp_path / "m.png")


def test_several_pictures_in_a_file_are_refused(tmp_path: Path):
    picture = Image.fromarray(np.eye(20, dtype=np.uint8))
    for name in ("m.tif", "m.gif", "m.png"):
        other = Image.fromarray(1 - np.eye(20, dtype=np.uint8))
        picture.save(tmp_path / name, save_all=True, append_images=[other])
        with pytest.raises(InputError, match=rf"{name}: it holds 2 pictures"):
            read_mask(tmp_path / name)


def test_masks_are_turned_upright_as_frames_are(tmp_path: Path):
    ids = np.zeros((4, 6), np.uint8)
    ids[0, 1] = 3
    exif = Image.Exif()
    exif[274] = 6  # a quarter turn clockwise
    for image in (Image.fromarray(ids), Image.fromarray(ids).convert("P")):
        image.save(tmp_path / "m.png", exif=exif)
        np.testing.assert_array_equal(read_mask(tmp_path / "m.png").ids, np.rot90(ids, -1))


@pytest.mark.parametrize("name", ["m.png", "v.mp4", "c.pth", "j.json"])
def test_pipes_do_not_block(tmp_path: Path, name: str):
    os.mkfifo(tmp_path / name)
    readers = {"m.png": read_mask, "v.mp4": open_video, "c.pth": read_tensors, "j.json": read_json}
    with pytest.raises((InputError, TorchFileError, OSError), match="not a regular file"):
        readers[name](tmp_path / name)
