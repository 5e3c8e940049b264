import json
from pathlib import Path

import pytest

from s3_jax.benchmarks.protocols import (
    PROTOCOLS,
    YOUTUBE_VOS_SEEN,
    ObjectMeta,
    group_of,
    read_meta,
)
from s3_jax.errors import InputError


def test_youtube_vos_has_65_seen_categories() -> None:
    assert len(YOUTUBE_VOS_SEEN) == 65


@pytest.mark.parametrize(
    ("protocol", "category", "unseen", "group"),
    [
        ("youtube_vos", "dog", None, "seen"),
        ("youtube_vos", "toaster", None, "unseen"),
        ("youtube_vos", "dog", frozenset(["dog"]), "unseen"),
        ("youtube_vos", None, None, None),
        ("lvos", None, None, None),
        ("lvos", None, frozenset(["clip"]), "unseen"),
        ("lvos", None, frozenset(["other"]), "seen"),
        ("davis2017", "toaster", None, None),
    ],
)
def test_groups(protocol, category, unseen, group) -> None:
    assert group_of(PROTOCOLS[protocol], "clip", ObjectMeta(category), unseen) == group


def test_reads_both_kinds_of_meta_file(tmp_path: Path) -> None:
    path = tmp_path / "meta.json"
    span = {"start": "00000001", "end": "00000046", "frame_nums": "10"}
    objects = {"2": {"category": "dog", "frames": ["00000", "00005"]}, "10": {"frame_range": span}}
    path.write_text(json.dumps({"videos": {"clip": {"objects": objects}}}))
    assert read_meta(path) == {
        "clip": {
            2: ObjectMeta("dog", ("00000", "00005"), None),
            10: ObjectMeta(None, None, ("00000001", "00000046")),
        }
    }


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"videos": []}', '{"videos": {"a": {"objects": {"x": {}}}}}', '{"video": {}}',
     '{"videos": {"a": {"objects": {"1": {"frame_range": {}}}}}}'],
)  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "meta.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"meta\.json is not a meta\.json of YouTube-VOS or LVOS"):
        read_meta(path)
    with pytest.raises(InputError, match="cannot read the meta file"):
        read_meta(tmp_path / "absent.json")


@pytest.mark.parametrize(
    "objects",
    [{"-1": {}}, {"0": {}}, {"1e5": {}}, {"1": {"category": []}}, {"1": {"frames": "0123"}}],
)
def test_objects_that_cannot_be_are_refused(tmp_path, objects):
    path = tmp_path / "meta.json"
    path.write_text(json.dumps({"videos": {"a": {"objects": objects}}}))
    with pytest.raises(InputError, match=r"meta\.json is not a meta\.json of"):
        read_meta(path)
