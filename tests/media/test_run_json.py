"""The schema of a run's record, and the three schemas that it replaced."""

import json
from pathlib import Path
from typing import Any

import pytest

from s3_jax.media.run_json import differences, new_record, read_record, write_record

SETTINGS = {"size": (480, 864), "mem_every": 5}


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = new_record("prediction", SETTINGS) | {"frames": 3}
    write_record(tmp_path / "run.json", record)
    assert read_record(tmp_path / "run.json") == record
    assert record["settings"]["size"] == [480, 864]
    assert {"python", "jax", "numpy"} <= record["versions"].keys()
    assert record["finished"] is False


@pytest.mark.parametrize(
    ("content", "kind", "settings"),
    [
        ({"identity": {"a": 1}, "finished": True, "frames": 9}, "segmentation", {"a": 1}),
        ({"settings": {"dataset": "x"}, "frames": 9}, "prediction", {"dataset": "x"}),
        ({"settings": {"merged": []}}, "merging", {"merged": []}),
        ({"model": {}, "stages": {}}, "training", {"model": {}, "stages": {}}),
    ],
)
def test_earlier_forms(tmp_path: Path, content: Any, kind: str, settings: Any) -> None:
    (tmp_path / "run.json").write_text(json.dumps(content))
    record = read_record(tmp_path / "run.json")
    assert (record["kind"], record["settings"]) == (kind, settings)
    assert record["finished"] is content.get("finished", False)
    assert record.get("frames") == content.get("frames")


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"settings": 3}', '{"format": "other", "settings": {}}',
             '{"format": "s3_jax run", "version": 2, "settings": {}}'],
)  # fmt: skip
def test_what_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError):
        read_record(tmp_path / "run.json")


def test_differences_are_named_and_younger_settings_are_their_defaults() -> None:
    recorded = json.loads(json.dumps(SETTINGS))
    assert differences(recorded, SETTINGS) == []
    assert differences(recorded, SETTINGS | {"mem_every": 3}) == [("mem_every", 5, 3)]
    assert differences(recorded, SETTINGS | {"top_k": 30}) == []
    assert differences(recorded, SETTINGS | {"top_k": 7}) == [("top_k", None, 7)]
    assert differences(recorded, SETTINGS | {"strange": 1}) == [("strange", None, 1)]
