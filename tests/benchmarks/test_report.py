import csv
import json
from pathlib import Path

import pytest

from s3_jax.benchmarks.protocols import Group
from s3_jax.benchmarks.report import terminal_table, write_csv, write_scores_json
from tests.benchmarks.reports import BEAR, BUS, WORSE_BEAR, entry, report, sequence


def test_averages_give_every_object_the_same_weight() -> None:
    run = report(("ours", [BEAR, BUS])).runs[0]
    assert run.overall.region.mean == pytest.approx((0.7 + 1.0 + 0.3) / 3)
    assert run.overall.boundary.mean == pytest.approx((0.3 + 1.0 + 0.1) / 3)
    assert run.overall.region.recall == pytest.approx((1 + 1 + 0) / 3)
    assert run.overall.region.decay == pytest.approx((0.2 + 0.0 - 0.2) / 3)
    assert run.sequences["bear"].overall.score == pytest.approx((0.85 + 0.65) / 2)
    assert run.benchmark_score == run.overall.score


def test_frames_average_over_the_objects_scored_on_them() -> None:
    late = entry(2, [1.0], [0.0])
    late.frames = ["00000"]
    run = report(("ours", [sequence("bear", entry(1, [0.8, 0.6], [0.4, 0.2]), late)])).runs[0]
    assert run.sequences["bear"].frame_means() == {
        "00000": (1.0, 0.0),
        "00001": (0.8, 0.4),
        "00002": (0.6, 0.2),
    }


def test_g_is_the_mean_over_seen_and_unseen() -> None:
    groups: dict[str, dict[int, Group | None]] = {
        "bear": {1: "seen", 2: "seen"},
        "bus": {1: "unseen"},
    }
    grouped = report(("ours", [BEAR, BUS]), protocol="youtube_vos", groups=groups)
    run = grouped.runs[0]
    assert run.benchmark_score == pytest.approx((0.85 + 0.65 + 0.3 + 0.1) / 4)
    header = terminal_table(grouped).splitlines()[2].split("  ")
    assert [name.strip() for name in header if name.strip()][:6] == [
        "result", "G", "J seen", "F seen", "J unseen", "F unseen",
    ]  # fmt: skip


def test_json_holds_every_value(tmp_path: Path) -> None:
    write_scores_json(tmp_path / "scores.json", report(("ours", [BEAR, BUS])))
    text = (tmp_path / "scores.json").read_text()
    values = json.loads(text)
    (result,) = values["results"]
    assert values["protocol"] == "davis2017"
    assert result["overall"]["J-Mean"] == pytest.approx(2 / 3)
    assert set(result["overall"]) == {
        "J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay",
    }  # fmt: skip
    bear = result["sequences"]["bear"]["objects"]["1"]
    assert (bear["frames"], bear["J"], bear["F"]) == (["00001", "00002"], [0.8, 0.6], [0.4, 0.2])
    assert '"J": [ 0.8, 0.6 ]' in text, "a list is on one line"
    assert list(tmp_path.iterdir()) == [tmp_path / "scores.json"]


def test_csv_has_a_line_for_every_result_sequence_and_object(tmp_path: Path) -> None:
    both = report(("ours", [BEAR]), ("a, b", [WORSE_BEAR]))
    write_csv(tmp_path / "scores.csv", both)
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["result"], r["level"], r["sequence"], r["object"]) for r in rows[:4]] == [
        ("ours", "overall", "", ""),
        ("ours", "sequence", "bear", ""),
        ("ours", "object", "bear", "1"),
        ("ours", "object", "bear", "2"),
    ]
    assert [float(r["J&F-Mean"]) for r in rows[:4]] == pytest.approx([0.75, 0.75, 0.5, 1.0])
    assert [r["result"] for r in rows[4:]] == ["a, b"] * 4
    assert {r["frames"] for r in rows} == {"2"}


def test_table_compares_results_worst_sequence_first() -> None:
    alone = terminal_table(report(("ours", [BEAR, BUS])))
    assert alone.index("bus") < alone.index("bear")
    compared = terminal_table(report(("ours", [BEAR]), ("theirs", [WORSE_BEAR])))
    assert "J&F ours  J&F theirs" in compared
    assert [line.split() for line in compared.splitlines() if line.startswith("bear")] == [
        ["bear", "2", "75.0", "7.5"]
    ]


def test_many_sequences_are_cut_short() -> None:
    scores = [sequence(f"s{i:03d}", entry(1, [i / 100], [i / 100])) for i in range(50)]
    table = terminal_table(report(("ours", scores)))
    assert "s039" in table and "s040" not in table
    assert "and 10 better sequences" in table


def test_notes() -> None:
    incomplete = sequence("bear", entry(1, [0.0], [0.0]), missing=["00001"], unscored=[4])
    davis = terminal_table(report(("ours", [incomplete, BUS])))
    assert "ours lacks 1 masks in 1 sequences, which were scored as empty" in davis
    assert "DAVIS 2017 leaves out objects of bear: they are not in the first frame" in davis
    assert "Note" not in terminal_table(report(("ours", [BEAR, BUS])))
