from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3_jax.errors import InputError
from s3_jax.media.mask_files import MaskFiles, read_mask
from s3_jax.media.palette import voc_palette

IDS = np.array([[0, 1, 1], [2, 0, 7]], np.uint8)


def _palette_image(ids: np.ndarray) -> Image.Image:
    image = Image.frombytes("P", ids.shape[::-1], ids.astype(np.uint8).tobytes())
    image.putpalette(voc_palette().tobytes())
    return image


def _save(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    _palette_image(ids).save(path)


def test_palette_index_is_the_id(tmp_path):
    _save(tmp_path / "m.png", IDS)
    mask = read_mask(tmp_path / "m.png")
    assert np.array_equal(mask.ids, IDS)
    assert mask.object_ids == (1, 2, 7)
    assert mask.encoding.kind == "palette"
    assert mask.encoding.palette == voc_palette().tobytes()


def test_grey_value_is_the_id(tmp_path):
    davis_2016 = np.where(IDS > 0, 255, 0).astype(np.uint8)
    Image.fromarray(davis_2016).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    assert (mask.object_ids, mask.encoding.kind) == ((255,), "grey")


def test_sixteen_bit_and_one_bit_and_alpha(tmp_path):
    many = IDS.astype(np.uint16) * 5000
    Image.fromarray(many).save(tmp_path / "many.png")
    assert read_mask(tmp_path / "many.png").object_ids == (5000, 10000, 35000)
    Image.fromarray(IDS > 0).save(tmp_path / "one.png")
    assert read_mask(tmp_path / "one.png").object_ids == (1,)
    Image.fromarray(IDS).convert("LA").save(tmp_path / "la.png")
    assert np.array_equal(read_mask(tmp_path / "la.png").ids, IDS)


def test_colours_are_long_ids(tmp_path):
    rgb = np.array([[(0, 0, 0), (4, 0, 0)], [(4, 3, 2), (0, 0, 1)]], np.uint8)
    Image.fromarray(rgb).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    assert mask.encoding.kind == "rgb"
    assert mask.ids.tolist() == [[0, 4], [4 + 3 * 256 + 2 * 65536, 65536]]


def test_grey_saved_in_colour_is_still_grey(tmp_path):
    Image.fromarray(IDS).convert("RGBA").save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png")
    assert (mask.object_ids, mask.encoding.kind) == ((1, 2, 7), "grey_rgb")


def test_one_rule_for_all_colour_masks_of_a_video(tmp_path):
    colours = np.array([[(128, 0, 0), (128, 128, 128)]], np.uint8)
    (tmp_path / "m").mkdir()
    Image.fromarray(colours).save(tmp_path / "m" / "0.png")
    Image.fromarray(colours[:, [1, 1]]).save(tmp_path / "m" / "1.png")
    masks = MaskFiles(tmp_path / "m", None)
    grey_id = 128 * (1 + 256 + 65536)
    assert masks.first.object_ids == (128, grey_id)
    later = masks.read(1)
    assert later is not None
    assert later.object_ids == (grey_id,)


def test_void_label_is_background(tmp_path):
    _save(tmp_path / "m.png", np.array([[0, 255], [3, 255]]))
    assert read_mask(tmp_path / "m.png", void=255).object_ids == (3,)
    assert read_mask(tmp_path / "m.png").object_ids == (3, 255)


@pytest.mark.parametrize("name", ["m.jpg", "photo.png", "float.tiff", "cut.png", "text.png"])
def test_files_that_cannot_be_masks(tmp_path, name):
    path = tmp_path / name
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    if name == "float.tiff":
        Image.fromarray(np.ones((4, 4), np.float32)).save(path)
    elif name == "text.png":
        path.write_text("no image")
    else:
        Image.fromarray(noise).save(path)
    if name == "cut.png":
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=name) as caught:
        read_mask(path)
    assert "\n" not in str(caught.value)


def test_single_file_is_for_the_first_frame(tmp_path, caplog):
    _save(tmp_path / "whatever.png", IDS)
    masks = MaskFiles(tmp_path / "whatever.png", ["a", "b"])
    assert masks.first_index == 0
    assert masks.read(0) is masks.first
    assert masks.read(1) is None
    assert not caplog.text
    _save(tmp_path / "b.png", IDS)
    MaskFiles(tmp_path / "b.png", ["a", "b"])
    assert "taken for the first frame" in caplog.text


def test_directory_is_matched_by_name(tmp_path):
    for stem, ids in (("b", IDS), ("c", IDS * 0), ("d", IDS)):
        _save(tmp_path / "m" / f"{stem}.png", ids)
    masks = MaskFiles(tmp_path / "m", ["a", "b", "c", "d"])
    assert {i: f.stem for i, f in masks.files.items()} == {1: "b", 2: "c", 3: "d"}
    assert masks.first_index == 1


def test_directory_is_matched_by_number_where_no_name_fits(tmp_path):
    for stem in ("mask_007", "mask_12"):
        _save(tmp_path / "m" / f"{stem}.png", IDS)
    masks = MaskFiles(tmp_path / "m", ["frame_00002", "frame_00007", "frame_00012"])
    assert sorted(masks.files) == [1, 2]


def test_video_files_are_matched_by_index(tmp_path):
    for stem in ("00003", "00010"):
        _save(tmp_path / "m" / f"{stem}.png", IDS)
    masks = MaskFiles(tmp_path / "m", None)
    assert sorted(masks.files) == [3, 10]
    assert masks.beyond(10) == ["00010.png"]
    assert masks.beyond(11) == []


@pytest.mark.parametrize(
    ("stems", "frames", "message"),
    [
        (["a", "x"], ["a", "b"], "no frame is named like x.png"),
        (["x"], ["a", "b"], "x.png belongs to no frame"),
        (["7"], ["1", "2"], "7.png belongs to no frame"),
        (["first"], None, "first.png belongs to no frame"),
        (["1", "01"], None, "1.png are both for frame 1"),
    ],
)
def test_masks_without_a_frame_are_refused(tmp_path, stems, frames, message):
    for stem in stems:
        _save(tmp_path / "m" / f"{stem}.png", IDS)
    with pytest.raises(InputError, match=message):
        MaskFiles(tmp_path / "m", frames)


def test_at_least_one_object_is_needed(tmp_path):
    _save(tmp_path / "m" / "0.png", IDS * 0)
    _save(tmp_path / "m" / "1.png", IDS * 0)
    with pytest.raises(InputError, match=r"0\.png is empty"):
        MaskFiles(tmp_path / "m" / "0.png", None)
    with pytest.raises(InputError, match=r"all masks in .*m are empty"):
        MaskFiles(tmp_path / "m", None)
    with pytest.raises(InputError, match="does not exist"):
        MaskFiles(tmp_path / "gone", None)


def test_later_ids_must_fit_the_first_encoding(tmp_path):
    _save(tmp_path / "m" / "0.png", IDS)
    Image.fromarray(IDS.astype(np.uint16) * 1000).save(tmp_path / "m" / "1.png")
    masks = MaskFiles(tmp_path / "m", None)
    with pytest.raises(InputError, match=r"1\.png has an object 7000, but the first mask, 0\.png"):
        masks.read(1)


def test_warnings_about_likely_mistakes(tmp_path, caplog):
    _save(tmp_path / "void.png", np.array([[0, 255], [3, 255]]))
    MaskFiles(tmp_path / "void.png", None)
    assert "pass --void=255" in caplog.text
    caplog.clear()
    soft = np.zeros((100, 100), np.uint8)
    soft[50:] = 255
    soft[50, :] = np.arange(100, 200)
    Image.fromarray(soft).save(tmp_path / "soft.png")
    MaskFiles(tmp_path / "soft.png", None)
    assert "soft edges" in caplog.text
    caplog.clear()
    Image.fromarray(np.where(soft > 127, 255, 0).astype(np.uint8)).save(tmp_path / "hard.png")
    MaskFiles(tmp_path / "hard.png", None)
    assert not caplog.text
