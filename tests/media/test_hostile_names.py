"""Names and numbers in files that would lead outside the output or use unbounded memory."""

import json
from pathlib import Path

import pytest

from s3_jax.benchmarks.layouts.burst import read_annotations
from s3_jax.benchmarks.protocols import read_meta
from s3_jax.benchmarks.score_folders import read_sequence_list
from s3_jax.errors import InputError
from s3_jax.media.json_files import read_json
from s3_jax.media.output_paths import inside
from s3_jax.media.rle import decode_rle

BAD = ["../x", "/etc", "a/../../b", "", "a//b", "..\\x", "c:/x", "a\x1b[2J", "x" * 300]


@pytest.mark.parametrize("name", BAD)
def test_no_name_leaves_the_output(tmp_path: Path, name: str):
    with pytest.raises(InputError, match="rename it"):
        inside(tmp_path, name, "list.json")
    (tmp_path / "meta.json").write_text(json.dumps({"videos": {name: {"objects": {}}}}))
    with pytest.raises(InputError, match=r"meta\.json"):
        read_meta(tmp_path / "meta.json")
    size = {"width": 4, "height": 4}
    frames: dict[str, list] = {"annotated_image_paths": [], "segmentations": []}
    sequence = {"dataset": "d", "seq_name": name, **size, **frames}
    (tmp_path / "burst.json").write_text(json.dumps({"sequences": [sequence]}))
    with pytest.raises(InputError, match=r"burst\.json"):
        read_annotations(tmp_path / "burst.json")


def test_ordinary_names_and_links_within(tmp_path: Path):
    assert inside(tmp_path, "source/a video", "list") == tmp_path / "source" / "a video"
    (tmp_path / "out").symlink_to("/")
    with pytest.raises(InputError, match="link that leaves"):
        inside(tmp_path, "out/tmp", "list")


def test_lists_cannot_climb(tmp_path: Path):
    (tmp_path / "val.txt").write_text("../other\n")
    with pytest.raises(InputError, match=r"val\.txt"):
        read_sequence_list(tmp_path / "val.txt")


def test_small_texts_do_not_ask_for_much(tmp_path: Path, monkeypatch):
    with pytest.raises(InputError, match="megapixels"):
        decode_rle("0", (10**6, 10**6))
    with pytest.raises(InputError, match="larger than any picture"):
        decode_rle("o" * 10**5 + "1", (4, 4))
    (tmp_path / "deep.json").write_text("[" * 10**5)
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        read_json(tmp_path / "deep.json")
    (tmp_path / "quoted.json").write_text(json.dumps({"a": "[" * 1000}))
    assert read_json(tmp_path / "quoted.json") == {"a": "[" * 1000}
    monkeypatch.setenv("S3_JAX_LIMITS", "json_megabytes=0.0001")
    with pytest.raises(InputError, match=r"S3_JAX_LIMITS=json_megabytes="):
        read_json(tmp_path / "quoted.json")
