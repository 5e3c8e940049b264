from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from s3_jax.benchmarks.protocols import PROTOCOLS
from s3_jax.benchmarks.report import Report
from s3_jax.benchmarks.scoring import SequenceTask, score_sequence
from s3_jax.benchmarks.summary import summarize_run
from s3_jax.benchmarks.worst_frames import choose_worst_frames, draw_worst_frames
from tests.benchmarks.reports import entry, report, sequence
from tests.benchmarks.sequences import squares, write_sequence


def chosen(count: int, *runs: list[float]) -> list[str]:
    scored = report(*((f"r{i}", [sequence("s", entry(1, v, v))]) for i, v in enumerate(runs)))
    return choose_worst_frames([run.sequences["s"] for run in scored.runs], count)


def test_lowest_frames_in_temporal_order() -> None:
    assert chosen(2, [0.9, 0.1, 0.8, 0.3]) == ["00002", "00004"]
    assert chosen(9, [0.9, 0.1]) == ["00001", "00002"]
    assert chosen(0, [0.9, 0.1]) == []


def test_any_result_that_fails_counts() -> None:
    assert chosen(1, [0.9, 0.9, 0.9], [0.9, 0.9, 0.2]) == ["00003"]


def test_frames_keep_a_distance_and_equals_spread() -> None:
    values = [0.9] * 20 + [0.1, 0.0, 0.1] + [0.9] * 6 + [0.5]
    assert chosen(2, values) == ["00022", "00030"]
    assert chosen(3, [0.0] * 31) == ["00001", "00016", "00031"]


def run_report(tmp_path: Path, frames: int = 5) -> tuple[Report, SequenceTask]:
    truth = write_sequence(tmp_path / "truth", squares(frames))
    result = write_sequence(tmp_path / "result", squares(frames, shift=9))
    task = SequenceTask("s", truth, (tmp_path,), (result,), PROTOCOLS["davis2017"])
    run = summarize_run("r", "r", score_sequence(task), {"s": {}})
    return Report(task.protocol, truth, [run]), task


def write_images(folder: Path, frames: int, size: tuple[int, int] = (40, 64)) -> None:
    folder.mkdir(parents=True)
    for t in range(frames):
        Image.new("RGB", size[::-1], (40, 40, 40)).save(folder / f"{t:05d}.jpg")


def test_pictures_show_prediction_and_annotation(tmp_path: Path) -> None:
    scored, task = run_report(tmp_path)
    write_images(tmp_path / "images/s", 5, size=(80, 128))  # larger than the masks
    pictures = draw_worst_frames(scored, [task], tmp_path / "images", 2)
    assert [row[0].frame for row in pictures["s"]] == ["00001", "00003"]
    data = np.frombuffer(pictures["s"][0][0].jpeg, np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert picture is not None and picture.shape == (40, 64, 3)
    assert picture.max() > 200, "white outline"
    blue, _, red = picture[12, 22].astype(int)  # predicted, not annotated
    assert red - blue > 40, "filled in the colour of object 1"


def test_missing_and_damaged_images_leave_pictures_out(tmp_path: Path) -> None:
    scored, task = run_report(tmp_path)
    assert draw_worst_frames(scored, [task], None, 3) == {}
    write_images(tmp_path / "images/s", 2)
    (tmp_path / "images/s/00002.jpg").write_bytes(b"no picture")
    pictures = draw_worst_frames(scored, [task], tmp_path / "images", 3)
    assert [row[0].frame for row in pictures["s"]] == ["00001"]
