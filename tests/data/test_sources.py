"""Data sets on disk, intact and broken, and the videos that they open."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from s3_jax.config import from_dict, to_dict
from s3_jax.data import config as data_config
from s3_jax.data import recipes
from s3_jax.data.config import (
    DataConfig,
    ImageFolderConfig,
    RegionFolderConfig,
    SyntheticConfig,
    VideoFolderConfig,
)
from s3_jax.data.decoding import decode_foreground, decode_ids, without_void
from s3_jax.data.folders import annotated_videos, evaluation_videos, image_mask_pairs
from s3_jax.data.regions import sample_objects
from s3_jax.data.sources import Source, open_source
from s3_jax.data.synthetic import SceneConfig
from s3_jax.data.videos import Video
from s3_jax.errors import InputError
from tests.data.datasets import (
    BACKGROUND,
    COLOURS,
    draw,
    make_photographs,
    make_videos,
    save_image,
    save_palette,
)


def open_first(config: data_config.SourceConfig, seed: int = 0, max_objects: int = 3) -> Video:
    source = open_source(config)
    assert isinstance(source, Source)
    return source.open(0, np.random.default_rng(seed), max_objects)


@pytest.mark.parametrize("resolution", ["480p", "Full-Resolution", ""])
@pytest.mark.parametrize("split", ["", "train"])
def test_layouts_of_video_folders_are_found(tmp_path, resolution, split):
    make_videos(tmp_path / split, resolution=resolution)
    videos = annotated_videos(tmp_path)
    assert [video.name for video in videos] == ["a", "b", "c"]
    assert all(len(video.frames) == 12 for video in videos)


def test_other_names_and_nested_videos(tmp_path):
    make_videos(tmp_path, names=["x/one", "y/two"], resolution="")
    (tmp_path / "JPEGImages").rename(tmp_path / "frames")
    (tmp_path / "Annotations").rename(tmp_path / "pngs")
    videos = annotated_videos(tmp_path, images="frames", annotations="pngs")
    assert [video.name for video in videos] == ["x/one", "y/two"]


def test_frames_open_with_their_masks(tmp_path):
    video = open_first(VideoFolderConfig(str(make_videos(tmp_path))))
    assert video.num_frames == 12
    for index in (0, 11):
        image, ids = video.image(index), video.ids(index)
        assert image.shape[:2] == ids.shape == (60, 80)
        for object_id in (1, 2):
            colour = image[ids == object_id].mean(axis=0)
            assert np.abs(colour - COLOURS[object_id]).max() < 40
    assert video.image(0, reduction=2).shape == (30, 40, 3)


def test_only_annotated_frames_count(tmp_path):
    source = open_source(
        VideoFolderConfig(str(make_videos(tmp_path, num_frames=12, annotate_every=5)))
    )
    assert source.num_frames(0) == 3
    video = source.open(0, np.random.default_rng(0), 3)
    np.testing.assert_array_equal(
        video.ids(2), draw((60, 80), [(1, 25, 20, 11), (2, 50, 30, 11)])[1]
    )


def test_a_subset_is_read_from_a_file(tmp_path):
    make_videos(tmp_path)
    (tmp_path / "list.txt").write_text("c\na\n")
    assert [v.name for v in annotated_videos(tmp_path, subset="list.txt")] == ["a", "c"]
    (tmp_path / "list.txt").write_text("c\nd\n")
    with pytest.raises(InputError, match=r"1 of 2 videos named in .*list.txt are not in .*: d"):
        annotated_videos(tmp_path, subset="list.txt")
    with pytest.raises(InputError, match=r"cannot read the list of videos .*other.txt"):
        annotated_videos(tmp_path, subset="other.txt")


def test_missing_folders_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        annotated_videos(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"neither .*JPEGImages nor .*train/JPEGImages exists"):
        annotated_videos(tmp_path)
    (tmp_path / "JPEGImages" / "a").mkdir(parents=True)
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(InputError, match="holds no directories of masks"):
        annotated_videos(tmp_path)


def test_half_extracted_folders_are_refused_and_small_gaps_are_not(tmp_path, caplog):
    make_videos(tmp_path, names=[f"v{i}" for i in range(11)], num_frames=2)
    images = tmp_path / "JPEGImages" / "480p"
    shutil.rmtree(images / "v3")
    assert len(annotated_videos(tmp_path)) == 10
    assert "1 of 11 videos" in caplog.text and "v3" in caplog.text
    shutil.rmtree(images / "v4")
    with pytest.raises(InputError, match=r"2 of 11 videos .*: v3, v4; is the data set fully"):
        annotated_videos(tmp_path)


def test_missing_frames_are_refused_too(tmp_path):
    make_videos(tmp_path)
    (tmp_path / "JPEGImages" / "480p" / "b" / "00003.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 3 videos .* whose frame is not there: b"):
        annotated_videos(tmp_path)


def test_evaluation_videos_are_directories_to_segment(tmp_path):
    (first, *_) = evaluation_videos(make_videos(tmp_path))
    assert first.name == "a"
    assert (first.images / "00000.jpg").exists() and (first.annotations / "00000.png").exists()


def encoded(tmp_path, image: Image.Image) -> bytes:
    image.save(tmp_path / "mask.png")
    return (tmp_path / "mask.png").read_bytes()


def test_void_is_background_unless_masks_are_binary(tmp_path):
    ids = np.array([[0, 1, 2, 255]], np.uint8)
    save_palette(tmp_path / "mask.png", ids)
    decoded = decode_ids((tmp_path / "mask.png").read_bytes(), "mask")
    np.testing.assert_array_equal(decoded, ids)
    np.testing.assert_array_equal(without_void(decoded, binary=False), [[0, 1, 2, 0]])
    np.testing.assert_array_equal(without_void(decoded, binary=True), [[0, 1, 1, 1]])


def test_mask_encodings(tmp_path):
    ids = np.array([[0, 1, 7]], np.uint8)
    wide = np.array([[0, 300, 70_000]])
    rgb = np.stack([wide % 256, wide // 256 % 256, wide // 65536], -1).astype(np.uint8)
    grey_alpha = Image.merge("LA", [Image.fromarray(ids), Image.fromarray(ids + np.uint8(9))])
    for image, expected in (
        (Image.fromarray(ids), ids),
        (Image.fromarray(np.dstack([ids] * 3)), ids),
        (Image.fromarray(rgb), wide),
        (Image.fromarray(wide.clip(0, 60_000).astype(np.uint16)), wide.clip(0, 60_000)),
        (Image.fromarray(ids > 0), ids > 0),
        (grey_alpha, ids),
    ):
        np.testing.assert_array_equal(decode_ids(encoded(tmp_path, image), "mask"), expected)
    with pytest.raises(InputError, match="the-mask"):
        decode_ids(b"no image", "the-mask")


def test_foreground_of_soft_small_valued_and_palette_masks(tmp_path):
    for values, expected in (
        ([0, 60, 200, 255], [0, 0, 1, 1]),
        ([0, 0, 1, 1], [0, 0, 1, 1]),
        ([0, 0, 0, 0], [0, 0, 0, 0]),
    ):
        grey = np.array([values], np.uint8)
        for image in (Image.fromarray(grey), Image.fromarray(np.dstack([grey] * 3))):
            got = decode_foreground(encoded(tmp_path, image), "mask")
            np.testing.assert_array_equal(got, [expected])
    save_palette(tmp_path / "p.png", np.array([[0, 1, 3]], np.uint8))
    np.testing.assert_array_equal(
        decode_foreground((tmp_path / "p.png").read_bytes(), "mask"), [[0, 1, 1]]
    )


def test_photographs_beside_or_apart_from_their_masks(tmp_path):
    make_photographs(tmp_path / "one" / "class_a", 2)
    make_photographs(tmp_path / "one" / "class_b", 2)  # the same names again
    pairs = image_mask_pairs(tmp_path / "one")
    assert len(pairs) == 4
    assert all(image.parent == mask.parent for image, mask in pairs)
    make_photographs(tmp_path / "two" / "images", 3)
    (tmp_path / "two" / "masks").mkdir()
    for mask in (tmp_path / "two" / "images").glob("*.png"):
        mask.rename(tmp_path / "two" / "masks" / mask.name)
    assert [(i.stem, m.stem) for i, m in image_mask_pairs(tmp_path / "two")] == [
        ("0", "0"), ("1", "1"), ("2", "2"),
    ]  # fmt: skip


def test_photographs_with_suffixed_names(tmp_path):
    make_photographs(tmp_path, 1)
    (tmp_path / "0.jpg").rename(tmp_path / "0_im.jpg")
    (tmp_path / "0.png").rename(tmp_path / "0_gt.png")
    assert len(image_mask_pairs(tmp_path)) == 1


def test_photographs_without_masks_are_refused(tmp_path):
    make_photographs(tmp_path, 4)
    (tmp_path / "2.png").unlink()
    with pytest.raises(InputError, match=r"1 of 4 images .* have no mask: 2.jpg"):
        image_mask_pairs(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        image_mask_pairs(tmp_path / "nowhere")


def test_a_photograph_is_a_video_of_one_frame(tmp_path):
    video = open_first(ImageFolderConfig(str(make_photographs(tmp_path))))
    assert video.num_frames == 1 and video.background is None
    np.testing.assert_array_equal(video.ids(0), draw((60, 80), [(1, 30, 30, 16)])[1])


def test_backgrounds_are_used_for_their_share(tmp_path):
    make_photographs(tmp_path / "objects", 1)
    save_image(tmp_path / "views" / "sky.jpg", np.full((50, 70, 3), 200, np.uint8))
    folder = ImageFolderConfig(
        str(tmp_path / "objects"), backgrounds=str(tmp_path / "views"), background_share=0.5
    )
    source = open_source(folder)
    rng = np.random.default_rng(0)
    shares = [source.open(0, rng, 1).background is not None for _ in range(100)]
    assert 30 < sum(shares) < 70


def make_regions(root, size=(60, 90)):
    """A 3 x 3 board of regions, numbered from 1."""
    rows, columns = np.arange(size[0]) // (size[0] // 3), np.arange(size[1]) // (size[1] // 3)
    regions = (1 + 3 * rows[:, None] + columns[None]).astype(np.uint8)
    save_image(root / "images" / "board.jpg", np.dstack([regions * 25] * 3))
    (root / "regions").mkdir()
    Image.fromarray(regions).save(root / "regions" / "board.png")
    return regions


def test_objects_of_regions_are_connected_unions_of_allowed_size(tmp_path):
    regions = make_regions(tmp_path)
    rng, sizes = np.random.default_rng(0), set()
    for _ in range(60):
        ids = sample_objects(rng, regions, 2, (0.1, 0.4))
        for object_id in set(np.unique(ids)) - {0}:
            members = set(np.unique(regions[ids == object_id]))
            assert np.isin(regions, list(members)).sum() == (ids == object_id).sum()
            assert 0.1 <= (ids == object_id).mean() <= 0.4
            sizes.add(len(members))
    assert sizes == {1, 2, 3}


def test_region_folders_give_new_objects_each_time(tmp_path):
    make_regions(tmp_path)
    folder = RegionFolderConfig(str(tmp_path), area=(0.1, 0.4))
    masks = {open_first(folder, seed).ids(0).tobytes() for seed in range(20)}
    assert len(masks) > 8
    assert all(open_first(folder, seed, max_objects=1).ids(0).max() == 1 for seed in range(10))
    shutil.rmtree(tmp_path / "regions")
    with pytest.raises(InputError, match=r"regions does not exist"):
        open_source(folder)


def test_synthetic_scenes_are_new_each_time_and_textured_with_pictures(tmp_path):
    save_image(tmp_path / "red.jpg", np.full((80, 80, 3), (200, 30, 30), np.uint8))
    scenes = SyntheticConfig(
        height=48,
        width=64,
        objects=(2, 2),
        scene=SceneConfig(distractors=0, noise=0.0),
        pictures=str(tmp_path),
        picture_share=1.0,
    )
    video = open_first(scenes)
    assert set(np.unique(video.ids(0))) == {0, 1, 2}
    colours = video.image(0).reshape(-1, 3).mean(axis=0)
    assert colours[0] > 2 * colours[1]
    other = open_first(scenes, seed=1)
    assert not np.array_equal(video.ids(0), other.ids(0))
    np.testing.assert_array_equal(open_first(scenes).image(5), video.image(5))


def test_damaged_files_are_named(tmp_path):
    make_videos(tmp_path)
    video = open_first(VideoFolderConfig(str(tmp_path)))
    image = tmp_path / "JPEGImages" / "480p" / "a" / "00001.jpg"
    image.write_bytes(image.read_bytes()[:400])
    with pytest.raises(InputError, match=r"a/00001\.jpg"):
        video.image(1)
    image.write_bytes(b"")
    with pytest.raises(InputError, match=r"a/00001\.jpg"):
        video.image(1)
    image.unlink()
    with pytest.raises(InputError, match=r"cannot read .*a/00001\.jpg: No such file"):
        video.image(1)


def test_configurations_survive_json():
    config = recipes.main_training(
        "/data",
        more=("mose",),
        seed=3,
        num_workers=2,
        video=data_config.VideoAugmentationConfig(flip=0.1),
    )
    config = dataclasses.replace(config, sources=(*config.sources, SyntheticConfig(height=99)))
    assert from_dict(DataConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match=r"kind 'movies'; known kinds: \['images'"):
        from_dict(DataConfig, {"sources": [{"kind": "movies"}]})
    with pytest.raises(ValueError, match="unknown key 'fillip'"):
        from_dict(DataConfig, {"video": {"fillip": 1}})
    with pytest.raises(ValueError, match=r"unknown key clip_colour.'hues'"):
        from_dict(DataConfig, {"video": {"clip_colour": {"hues": 1}}})
    with pytest.raises(ValueError, match="num_frames is 0"):
        DataConfig(num_frames=0)
    with pytest.raises(ValueError, match="skips is"):
        DataConfig(skips=((0.2, 5),))


def test_published_stages():
    static, video = recipes.pretraining("/data"), recipes.main_training("/data/")
    assert (static.num_steps, static.crop, static.num_frames, static.max_objects) == (
        80_000, 384, 3, 1,
    )  # fmt: skip
    assert (video.num_steps, video.crop, video.num_frames, video.max_objects) == (
        125_000, 480, 8, 3,
    )  # fmt: skip
    assert {s.path: s.multiplier for s in static.sources}["/data/BIG"] == 5
    assert [s.path for s in video.sources] == ["/data/DAVIS", "/data/YouTubeVOS"]
    assert recipes.main_training("/d", more=("mose", "burst", "ovis")).num_steps == 175_000
    with pytest.raises(ValueError, match="unknown set 'coco'"):
        recipes.main_training("/data", more=("coco",))


def test_colours_of_the_helper_tell_objects_from_background():
    assert all(np.abs(np.subtract(c, BACKGROUND)).max() > 60 for c in COLOURS[1:])


def test_a_subset_of_any_editor(tmp_path):
    make_videos(tmp_path, names=["a", "b c"])
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfa\r\nb c\r\n\r\n")
    assert [v.name for v in annotated_videos(tmp_path, subset="list.txt")] == ["a", "b c"]


def test_labelled_frames_as_photographs(tmp_path):
    make_videos(tmp_path, names=["a", "b"])
    source = open_source(VideoFolderConfig(str(tmp_path), stills=True))
    assert len(source) == 24 and {source.num_frames(i) for i in range(24)} == {1}
    images = [source.open(i, np.random.default_rng(0), 3).image(0) for i in (0, 1)]
    assert np.any(images[0] != images[1])
