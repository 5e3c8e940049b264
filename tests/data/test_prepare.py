"""Preparation of data sets: checks, stored records, and training as from the folder."""

import dataclasses
import io
import json
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from s3_jax.data import prepare
from s3_jax.data.config import (
    DataConfig,
    ImageFolderConfig,
    RecordsConfig,
    SyntheticConfig,
    VideoFolderConfig,
)
from s3_jax.data.mixture import Mixture
from s3_jax.data.pipeline import make_pipeline
from s3_jax.data.records import VideoRecords
from s3_jax.data.sources import open_source
from s3_jax.errors import InputError
from tests.data.datasets import make_photographs, make_videos, read_json, save_image, save_palette

SMALL = DataConfig(
    sources=(SyntheticConfig(),), crop=32, num_frames=3, num_threads=0, num_steps=100
)


def prepared(items, output, name="discs"):
    """Check and store items; returns the data set's directory and the checks."""
    (output / name).mkdir(parents=True, exist_ok=True)
    checks = prepare.check_all(items, output / name / "log", workers=1)
    return prepare.write_records(name, output, items, checks), checks


def test_records_train_exactly_like_the_folder(tmp_path):
    make_videos(tmp_path / "videos", empty=[3])
    directory, _ = prepared(prepare.list_videos(tmp_path / "videos"), tmp_path / "out")
    got = []
    for source in (VideoFolderConfig(str(tmp_path / "videos")), RecordsConfig(str(directory))):
        config = dataclasses.replace(SMALL, sources=(source,))
        if isinstance(source, VideoFolderConfig):  # so that both know the same of empty masks
            (tmp_path / "videos" / "empty.json").write_text(
                json.dumps({v: ["00003"] for v in "abc"})
            )
            folder = dataclasses.replace(source, empty_masks="empty.json")
            config = dataclasses.replace(config, sources=(folder,))
        with make_pipeline(config, batch_size=3) as pipeline:
            got.append([next(pipeline) for _ in range(3)])
    for ours, theirs in zip(*got, strict=True):
        for name, value in ours.items():
            np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def test_tfds_itself_reads_what_we_store(tmp_path):
    make_videos(tmp_path / "videos", names="ab", num_frames=4)
    directory, _ = prepared(prepare.list_videos(tmp_path / "videos"), tmp_path / "out")
    builder = tfds.builder_from_directory(directory)
    examples = list(builder.as_data_source("train"))
    assert [e["metadata"]["video_name"] for e in examples] == [b"a", b"b"]
    assert examples[0]["metadata"]["num_frames"] == 4
    video = examples[0]["video"]
    assert video["frames"][0].shape == (60, 80, 3)
    stored = Image.open(tmp_path / "videos" / "Annotations" / "480p" / "a" / "00002.png")
    np.testing.assert_array_equal(video["segmentations"][2][..., 0], np.asarray(stored))


def test_only_what_a_clip_uses_is_decoded(tmp_path):
    make_videos(tmp_path / "videos", names="a", num_frames=12)
    directory, _ = prepared(prepare.list_videos(tmp_path / "videos"), tmp_path / "out")
    record = VideoRecords(directory, "train").read(0)
    image = (tmp_path / "videos" / "JPEGImages" / "480p" / "a" / "00005.jpg").read_bytes()
    assert record.frames[5] == image
    assert Image.open(io.BytesIO(record.segmentations[5])).mode == "L"


def test_a_data_set_as_tfds_made_it_is_read_without_our_index(tmp_path):
    make_videos(tmp_path / "videos", names="ab", num_frames=5)
    directory, _ = prepared(prepare.list_videos(tmp_path / "videos"), tmp_path / "out")
    (directory / "metadata.json").unlink()
    source = open_source(RecordsConfig(str(directory)))
    assert len(source) == 2 and source.num_frames(1) == 5
    config = dataclasses.replace(SMALL, sources=(RecordsConfig(str(directory)),))
    assert Mixture(config).sample(0, 0, 0, 0.0).num_objects >= 1


def test_sources_of_records_travel_to_worker_processes(tmp_path):
    make_videos(tmp_path / "videos", names="ab", num_frames=5)
    directory, _ = prepared(prepare.list_videos(tmp_path / "videos"), tmp_path / "out")
    mixture = Mixture(dataclasses.replace(SMALL, sources=(RecordsConfig(str(directory)),)))
    ours = mixture.sample(1, 0, 0, 0.0)
    sent = pickle.dumps(mixture)
    assert len(sent) < 10_000
    np.testing.assert_array_equal(pickle.loads(sent).sample(1, 0, 0, 0.0).frames, ours.frames)


def test_photographs_are_stored_as_videos_of_one_frame(tmp_path):
    make_photographs(tmp_path / "photographs", 3)
    items = prepare.list_photographs(tmp_path / "photographs")
    directory, _ = prepared(items, tmp_path / "out")
    folder = open_source(ImageFolderConfig(str(tmp_path / "photographs")))
    records = open_source(RecordsConfig(str(directory)))
    assert len(records) == 3 and records.num_frames(0) == 1
    rng = np.random.default_rng(0)
    for item in range(3):
        ours, theirs = records.open(item, rng, 1), folder.open(item, rng, 1)
        np.testing.assert_array_equal(ours.ids(0), theirs.ids(0))
        np.testing.assert_array_equal(ours.image(0), theirs.image(0))


def test_everything_wrong_is_found_reported_and_left_out(tmp_path):
    root = make_videos(tmp_path / "videos", names="abcd", num_frames=5, annotate_every=2)
    images, masks = root / "JPEGImages" / "480p", root / "Annotations" / "480p"
    (images / "a" / "00002.jpg").write_bytes(b"no image")
    save_palette(masks / "b" / "00004.png", np.ones((30, 40), np.uint8))
    save_image(images / "c" / "00000.jpg", np.zeros((40, 40, 3), np.uint8))
    for mask in (masks / "d").glob("*.png"):
        save_palette(mask, np.zeros((60, 80), np.uint8))
    save_palette(masks / "c" / "00004.png", np.full((60, 80), 255, np.uint8))  # void only
    items = prepare.list_videos(root)
    directory, checks = prepared(items, tmp_path / "out")
    report = prepare.report(items, checks)
    assert report["videos"] == 4 and report["videos_left_out"] == ["d"]
    assert report["frames"] == 12 and report["frames_usable"] == 6
    assert report["frames_without_object"] == 1
    assert report["frames_without_annotation"] == 8
    assert len(report["problems"]) == 3
    for part in ("a/00002.jpg", "b/00004.png is 40x30", "c/00000.png is 80x60, but"):
        assert any(part in problem for problem in report["problems"]), part
    assert prepare.empty_masks(items, checks) == {"c": ["00004"], "d": ["00000", "00002", "00004"]}
    index = VideoRecords(directory, "train").index()
    assert [(e.name, e.num_frames, e.empty) for e in index] == [
        ("a", 2, frozenset()),
        ("b", 2, frozenset()),
        ("c", 2, frozenset({1})),
    ]


def test_ids_beyond_eight_bits_are_numbered_anew(tmp_path):
    root = make_videos(tmp_path / "videos", names="a", num_frames=3)
    for number, mask in enumerate(sorted((root / "Annotations" / "480p" / "a").glob("*.png"))):
        ids = np.zeros((60, 80), int)
        ids[:20], ids[30:50] = 500, 70_000 if number else 0
        rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
        Image.fromarray(rgb).save(mask)
    directory, checks = prepared(prepare.list_videos(root), tmp_path / "out")
    assert checks[0].ids == [500, 70_000]
    video = open_source(RecordsConfig(str(directory))).open(0, np.random.default_rng(0), 3)
    assert set(np.unique(video.ids(0))) == {0, 1}
    assert set(np.unique(video.ids(2))) == {0, 1, 2}


def test_checks_are_not_repeated_unless_files_change(tmp_path, monkeypatch):
    root = make_videos(tmp_path / "videos", num_frames=3)
    items, log = prepare.list_videos(root), tmp_path / "log"
    first = prepare.check_all(items, log, workers=2)
    with log.open("a") as file:
        file.write('\n{"name": "c", "cut off')  # by a kill
    done = []
    monkeypatch.setattr(prepare, "check", lambda item: done.append(item.name) or first[1])
    assert prepare.check_all(items, log, workers=1) == first
    assert done == []
    image = root / "JPEGImages" / "480p" / "b" / "00000.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    prepare.check_all(items, log, workers=1)
    assert done == ["b"]


def test_nothing_usable_is_an_error(tmp_path):
    root = make_videos(tmp_path / "videos", empty=range(12))
    with pytest.raises(InputError, match="discs: no video is usable"):
        prepared(prepare.list_videos(root), tmp_path / "out")


def test_other_directories_are_refused_as_records(tmp_path):
    with pytest.raises(InputError, match=r"is no prepared data set .*dataset_info.json"):
        open_source(RecordsConfig(str(tmp_path)))
    make_photographs(tmp_path / "photographs", 1)
    directory, _ = prepared(prepare.list_photographs(tmp_path / "photographs"), tmp_path / "out")
    with pytest.raises(InputError, match=r"has no split 'validation', only \['train'\]"):
        open_source(RecordsConfig(str(directory), split="validation"))
    features = directory / "features.json"
    values = read_json(features)
    values["featuresDict"]["features"]["more"] = values["featuresDict"]["features"]["metadata"]
    features.write_text(json.dumps(values))
    with pytest.raises(InputError, match="holds other features"):
        open_source(RecordsConfig(str(directory)))


def test_damaged_records_are_named(tmp_path):
    make_videos(tmp_path / "videos", names="ab", num_frames=3)
    directory, _ = prepared(prepare.list_videos(tmp_path / "videos"), tmp_path / "out")
    source = open_source(RecordsConfig(str(directory)))
    (file,) = directory.glob("*.array_record*")
    content = bytearray(file.read_bytes())
    content[200:4000] = bytes(3800)
    file.write_bytes(bytes(content))
    with pytest.raises(InputError, match=r"cannot read video 0 of .*; prepare it again"):
        source.open(0, np.random.default_rng(0), 3)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(self):
        (tmp_path / "out/discs/incomplete.ABC_1.0.0").mkdir(parents=True)
        raise RuntimeError("write() failed: No space left on device;\n at byte 1024")

    make_videos(tmp_path / "data", ["a"], 2)
    monkeypatch.setattr(prepare.VideoBuilder, "write", full)
    with pytest.raises(InputError, match=r"discs cannot be written \(write.*No space.*make room"):
        prepared(prepare.list_videos(tmp_path / "data"), tmp_path / "out")
    assert not list((tmp_path / "out/discs").glob("incomplete.*"))
