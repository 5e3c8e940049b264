"""The file that records how results were made."""

import json

import pytest

from s3_jax.errors import InputError
from s3_jax.segmentation.run_record import RunRecord, read_run_records, speed

IDENTITY = {"dataset": "x", "size": 480}


class Device:
    device_kind = "fast"

    def __str__(self):
        return "fast:0"

    def memory_stats(self):
        return {"peak_bytes_in_use": 7}


def test_measurements_of_finished_videos(tmp_path):
    record = RunRecord(tmp_path, IDENTITY, (0, 1))
    record.note(data_dir="d")
    notes = {"frames_timed": 10, "seconds": 4.0, "warm_frames": 5, "warm_seconds": 1.0}
    finished = {"a": {"frames": 10, "notes": notes}, "b": {"frames": 30, "notes": notes}}
    record.finish([Device()], finished, {"c": "bad"})
    (values,) = read_run_records(tmp_path)
    assert (values["settings"], values["data_dir"]) == (IDENTITY, "d")
    assert (values["frames"], values["problems"]) == (40, {"c": "bad"})
    assert (values["frames_per_second"], values["frames_per_second_warm"]) == (2.5, 5.0)
    assert values["devices"] == [{"device": "fast:0", "kind": "fast", "peak_memory": 7}]
    assert values["peak_memory"] > 10**7
    assert "5.00 frames/s" in record.summary()


def test_speed_of_nothing_is_none():
    assert speed([]) == {"frames_per_second": None, "frames_per_second_warm": None}


def test_other_settings_are_named_unless_overwritten(tmp_path):
    RunRecord(tmp_path, IDENTITY, (1, 3)).note()
    RunRecord(tmp_path, IDENTITY, (0, 3)).note()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run_0_of_3.json", "run_1_of_3.json"]
    with pytest.raises(InputError, match=r"another size \(480, now 600\)"):
        RunRecord(tmp_path, IDENTITY | {"size": 600}, (0, 1))
    (tmp_path / "run_2_of_3.json").write_text("{")
    RunRecord(tmp_path, IDENTITY | {"size": 600}, (0, 2), overwrite=True).note()
    RunRecord(tmp_path, IDENTITY | {"size": 600}, (1, 2), overwrite=True).note()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run_0_of_2.json", "run_1_of_2.json"]


def test_directories_that_are_not_of_this_command(tmp_path):
    (tmp_path / "Annotations").mkdir()
    with pytest.raises(InputError, match=r"was not made by s3 predict"):
        RunRecord(tmp_path, IDENTITY, (0, 1))
    (tmp_path / "run.json").write_text(json.dumps({"something": 1}))
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        RunRecord(tmp_path, IDENTITY, (0, 1))
