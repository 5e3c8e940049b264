"""Exported masks are read back unchanged; outputs are complete and stay inside their folder."""

import functools
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from s3_jax.annotation.annotator import Annotator
from s3_jax.annotation.export import FORMATS, Export, ExportFrame, frames_of
from s3_jax.annotation.importing import import_masks
from s3_jax.annotation.looks import ObjectLook
from s3_jax.config import PropagationConfig
from s3_jax.errors import InputError
from s3_jax.media.mask_files import MaskFiles
from s3_jax.media.rle import decode_rle
from s3_jax.propagation.session import Session
from tests.propagation.conftest import TINY

NAMES = [f"{i:05d}" for i in range(5)]
SIZE = (45, 70)
LOOKS = {2: ObjectLook("brown bear", (200, 100, 50)), 9: ObjectLook("cub", (10, 220, 30))}


def ids_of(index: int) -> np.ndarray:
    ids = np.zeros(SIZE, np.uint8)
    if index != 3:  # a frame without any object
        ids[5 : 20 + index, 10:30] = 2
        ids[25:40, 20 + 5 * index : 45 + 5 * index] = 9
    return ids


def image_of(index: int) -> np.ndarray:
    rows, columns = np.indices(SIZE)
    return np.stack([rows * 5, columns * 3, np.full(SIZE, 40 * index)], axis=2).astype(np.uint8)


def frames():
    for index, name in enumerate(NAMES):
        yield ExportFrame(index, name, ids_of(index), functools.partial(image_of, index))


WHAT = Export("bear", frames, LOOKS, Fraction(24))


def imported(path: Path) -> dict[int, np.ndarray]:
    found = {}
    for index, masks in import_masks(path, NAMES, SIZE).frames():
        ids = np.zeros(SIZE, np.uint8)
        for id_, mask in masks.items():
            ids[mask] = id_
        found[index] = ids
    return found


@pytest.mark.parametrize("name", ["masks", "coco", "youtube_vos"])
def test_masks_make_the_round_trip(tmp_path, name):
    path = FORMATS[name](WHAT, tmp_path)
    found = imported(path)
    assert sorted(found) == [0, 1, 2, 4]
    for index, ids in found.items():
        np.testing.assert_array_equal(ids, ids_of(index))
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


@pytest.mark.parametrize("name", ["coco", "youtube_vos"])
def test_names_make_the_round_trip(tmp_path, name):
    names = import_masks(FORMATS[name](WHAT, tmp_path), NAMES, SIZE).names
    assert names == {2: "brown bear", 9: "cub"}


def test_masks_are_in_the_layout_of_segment(tmp_path):
    masks = MaskFiles(FORMATS["masks"](WHAT, tmp_path), NAMES)
    assert masks.first.encoding.palette[6:9] == bytes((200, 100, 50))
    np.testing.assert_array_equal(masks.read(3).ids, ids_of(3))
    found = imported(tmp_path)  # the folder around them
    np.testing.assert_array_equal(found[1], ids_of(1))


def test_coco_has_areas_and_boxes(tmp_path):
    content = json.loads(FORMATS["coco"](WHAT, tmp_path).read_text())
    assert [image["file_name"] for image in content["images"]] == [f"{n}.jpg" for n in NAMES]
    assert len(content["annotations"]) == 8
    bear = content["annotations"][0]
    assert bear["category_id"] == bear["track_id"] == 2 and bear["image_id"] == 1
    assert bear["bbox"] == [10, 5, 20, 15] and bear["area"] == 300
    assert bear["segmentation"]["size"] == [45, 70]
    np.testing.assert_array_equal(decode_rle(bear["segmentation"]["counts"], SIZE), ids_of(0) == 2)


def test_only_chosen_objects_are_exported(tmp_path):
    what = Export("bear", frames, LOOKS, Fraction(24), only=frozenset({9}))
    for index, ids in imported(FORMATS["coco"](what, tmp_path)).items():
        np.testing.assert_array_equal(ids, np.where(ids_of(index) == 9, 9, 0))


def test_ids_beyond_a_palette_are_kept(tmp_path):
    def large():
        for frame in frames():
            yield ExportFrame(
                frame.index, frame.name, frame.ids.astype(np.int32) * 100, frame.image
            )

    found = dict(import_masks(
        FORMATS["masks"](Export("bear", large, {}, Fraction(24)), tmp_path), NAMES, SIZE
    ).frames())  # fmt: skip
    assert sorted(found[0]) == [200, 900]


def test_png_cut_outs_are_opaque_where_objects_are(tmp_path):
    folder = FORMATS["cutouts"](WHAT, tmp_path)
    for index, name in enumerate(NAMES):
        picture = np.asarray(Image.open(folder / f"{name}.png"))
        opaque = ids_of(index) > 0
        np.testing.assert_array_equal(picture[..., 3], opaque * 255)
        np.testing.assert_array_equal(picture[opaque][:, :3], image_of(index)[opaque])


@pytest.mark.parametrize(
    ("name", "decoder", "colour_error"),
    [("cutout_mov", "prores", 4), ("cutout_webm", "libvpx-vp9", 12)],
)
def test_video_cut_outs_keep_their_transparency(tmp_path, name, decoder, colour_error):
    path = FORMATS[name](WHAT, tmp_path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 24
        context = av.CodecContext.create(decoder, "r")
        context.extradata = stream.codec_context.extradata
        decoded = [f for packet in container.demux(stream) for f in context.decode(packet)]
    assert len(decoded) == len(NAMES)
    for index, frame in enumerate(decoded):
        picture = frame.to_ndarray(format="rgba")[:45, :70]
        inner = np.zeros(SIZE, bool)
        inner[8:17, 13:27] = index != 3
        assert ((picture[..., 3] > 128) == (ids_of(index) > 0)).mean() > 0.98
        if index != 3:
            difference = picture[inner][:, :3].astype(int) - image_of(index)[inner]
            assert np.abs(difference).mean() < colour_error


def test_the_overlay_shows_the_objects_colours(tmp_path):
    with av.open(str(FORMATS["overlay"](WHAT, tmp_path))) as container:
        pictures = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(pictures) == len(NAMES)
    inside = pictures[0][7:11, 12:16].mean((0, 1))
    outside = image_of(0)[7:11, 12:16].mean((0, 1))
    assert np.abs(inside - (0.55 * outside + 0.45 * np.array((200, 100, 50)))).max() < 20


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_an_export_takes_the_place_of_an_earlier_one(tmp_path, name):
    path = FORMATS[name](WHAT, tmp_path)

    def shorter():
        yield next(frames())

    again = FORMATS[name](Export("bear", shorter, LOOKS, Fraction(24)), tmp_path)
    assert again == path and [p.name for p in tmp_path.iterdir()] == [path.name]
    if path.is_dir():
        assert len([p for p in path.rglob("*.png") if p.name.endswith(".png")]) == 1


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_failed_export_leaves_the_earlier_one(tmp_path, name):
    path = FORMATS[name](WHAT, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def failing():
        yield from list(frames())[:2]
        raise InputError("frame 2 is damaged")

    with pytest.raises(InputError, match="damaged"):
        FORMATS[name](Export("bear", failing, LOOKS, Fraction(24)), tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_nothing_is_written_outside_the_folder(tmp_path):
    def climbing():
        yield ExportFrame(0, "../../escaped", ids_of(0), lambda: image_of(0))

    for name in ("masks", "youtube_vos", "cutouts"):
        with pytest.raises(InputError, match="not a path within a directory"):
            FORMATS[name](Export("bear", climbing, LOOKS, Fraction(24)), tmp_path / "inner")
    assert not list(tmp_path.rglob("escaped*"))


def coco(path: Path, **changes) -> Path:
    """A COCO file with one polygon, one list of run lengths, changed as said."""
    content = {
        "images": [{"id": 5, "file_name": "x/00001.png", "height": 45, "width": 70}],
        "categories": [{"id": 0, "name": "cat"}, {"id": 4, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 4,
             "segmentation": [[10, 5, 30, 5, 30, 20, 10, 20]]},
            {"id": 2, "image_id": 5, "category_id": 0,
             "segmentation": {"size": [45, 70], "counts": [45, 90, 3150 - 135]}},
        ],
    } | changes  # fmt: skip
    file = path / "their.json"
    file.write_text(json.dumps(content))
    return file


def test_polygons_and_lists_of_run_lengths_are_read(tmp_path):
    """Categories tell objects apart; since one of them is 0 the ids are counted from 1."""
    found = import_masks(coco(tmp_path), NAMES, SIZE)
    ((index, masks),) = found.frames()
    assert index == 1 and found.names == {1: "cat", 2: "dog"}
    expected = np.zeros(SIZE, bool)
    expected[5:20, 10:30] = True
    assert (masks[2] ^ expected).sum() <= 2 * (15 + 20)  # a border of one pixel
    assert masks[1][:, 1:3].all() and masks[1].sum() == 90


IMAGE = {"id": 5, "file_name": "00001.png", "height": 45, "width": 70}
ONE = {"id": 1, "image_id": 5, "category_id": 4}


CORNERS = {"segmentation": [[1, 2, 3, 4, 5, 6]]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [IMAGE | {"file_name": "bear.png"}]}, "none of its"),
        ({"images": [IMAGE | {"height": 5}]}, "the size"),
        ({"annotations": [ONE | {"segmentation": [[1, 2]]}]}, "three corners"),
        ({"annotations": [ONE]}, "cannot be read as COCO"),
        ({"annotations": [ONE | {"segmentation": {"size": [45, 70], "counts": [1]}}]}, "add up"),
        ({"annotations": [ONE | {"segmentation": {"size": [45, 70], "counts": "\u0001"}}]}, "char"),
        ({"annotations": [ONE | {"image_id": 77} | CORNERS]}, "image 77"),
        ({"annotations": [ONE | CORNERS] * 2}, "track_id"),
        ({"annotations": None}, "cannot be read as COCO"),
    ],
)  # fmt: skip
def test_coco_that_cannot_be_used_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        import_masks(coco(tmp_path, **changes), NAMES, SIZE)


def test_masks_of_another_size_are_refused(tmp_path):
    path = FORMATS["masks"](WHAT, tmp_path)
    with pytest.raises(InputError, match="frames' size"):
        list(import_masks(path, NAMES, (90, 140)).frames())


def test_an_annotator_is_exported_as_it_is(tmp_path, tiny_network, video):
    session = Session(TINY, tiny_network.variables, PropagationConfig(mem_every=3))
    annotator = Annotator(session, lambda i: video.frames[i], 4)
    annotator.annotate(1, video.hard_masks(1, 1, 2))
    list(annotator.propagate(0, 3))
    names = ["a", "b", "c", "d"]
    what = Export("squares", frames_of(annotator, names), {}, Fraction(24))
    for name in ("masks", "coco"):
        found = dict(import_masks(FORMATS[name](what, tmp_path), names, (64, 96)).frames())
        for index in range(4):
            for id_ in (1, 2):
                expected = annotator.found(index).ids == id_
                mask = found.get(index, {}).get(id_, np.zeros((64, 96), bool))
                np.testing.assert_array_equal(mask, expected)
