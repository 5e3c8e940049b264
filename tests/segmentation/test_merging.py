"""Merged probabilities of several runs."""

import numpy as np
import pytest

from s3_jax.errors import InputError
from s3_jax.media.mask_files import read_mask
from s3_jax.media.writers import write_scores
from s3_jax.segmentation.merging import (
    mask_encoding,
    merge_frame,
    merge_scores,
    read_scores,
    refuse_different_frames,
    scored_frames,
)
from tests.benchmarks.benchmark_files import mask, write_masks
from tests.benchmarks.sequences import PALETTE, RGB


def _scores(ids, *columns):
    """Probabilities for a picture of one row; `columns` hold one value per channel."""
    return np.array(ids, np.int32), np.array(columns, np.float32).T[:, None, :]


def test_the_sum_decides():
    one = _scores([4], [0.6, 0.4], [0.1, 0.9], [0.8, 0.2])
    two = _scores([4], [0.1, 0.9], [0.6, 0.4], [0.7, 0.3])
    assert merge_scores([one, two]).tolist() == [[4, 4, 0]]
    assert merge_scores([one]).tolist() == [[0, 4, 0]]


def test_objects_are_matched_by_id_and_may_be_absent():
    one = _scores([9, 300], [0.2, 0.5, 0.3], [0.2, 0.3, 0.5])
    two = _scores([300, 9], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1])
    three = _scores([], [0.9], [1.1])
    assert merge_scores([one, two]).tolist() == [[9, 300]]
    assert merge_scores([one, two, three]).tolist() == [[9, 0]]


def test_sizes_must_agree():
    with pytest.raises(InputError, match=r"different sizes, \[\(1, 1\), \(1, 2\)\]"):
        merge_scores([_scores([], [1.0]), _scores([], [1.0], [1.0])])


def test_files_there_and_back(tmp_path):
    ids, prob = _scores([4, 2], [0.5, 0.2, 0.3], [0.1, 0.2, 0.7])
    write_scores(tmp_path / "a.npz", prob, tuple(ids.tolist()))
    found, read = read_scores(tmp_path / "a.npz")
    assert (found.tolist(), read.tolist()) == (ids.tolist(), prob.tolist())
    merge_frame([tmp_path / "a.npz"] * 2, PALETTE, tmp_path / "00000.png")
    assert read_mask(tmp_path / "00000.png").ids.tolist() == [[0, 2]]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip"])
def test_damaged_files_are_named(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"video/00000: .*a\.npz does not hold probabilities"):
        merge_frame([tmp_path / "a.npz"], PALETTE, tmp_path / "video" / "00000.png")
    np.savez(tmp_path / "a.npz", prob=np.zeros((3, 1, 1)), ids=np.zeros(1))
    with pytest.raises(InputError, match=r"shapes \(3, 1, 1\), \(1,\)"):
        read_scores(tmp_path / "a.npz")


def test_frames_of_runs_must_be_the_same(tmp_path):
    runs = [tmp_path / "one", tmp_path / "two"]
    for run, names in zip(runs, (["a/0", "a/1", "b/c/7"], ["a/1", "a/2"]), strict=True):
        for name in names:
            path = run / "scores" / f"{name}.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            path.with_name(f".{path.name}.tmp").touch()
    found = [scored_frames(run) for run in runs]
    assert found[0] == {"a": ["0", "1"], "b/c": ["7"]}
    refuse_different_frames(runs, [found[0], found[0]])
    with pytest.raises(InputError) as error:
        refuse_different_frames(runs, found)
    text = str(error.value)
    for part in ("one/scores/a lacks 1 frames: 2", "two/scores/a lacks 1 frames: 0", "b/c lacks"):
        assert part in text
    with pytest.raises(InputError, match="with --save_scores"):
        scored_frames(tmp_path)


def test_encoding_of_colour_masks_without_objects(tmp_path):
    write_masks(tmp_path / "rgb", {"00000": mask(), "00001": mask(300)}, RGB)
    assert mask_encoding(tmp_path / "rgb").kind == "rgb"
    write_masks(tmp_path / "empty", {"00000": mask()}, RGB)
    assert mask_encoding(tmp_path / "empty").kind == "grey_rgb"
    write_masks(tmp_path / "palette", {"00000": mask(1)})
    assert mask_encoding(tmp_path / "palette") == read_mask(tmp_path / "palette/00000.png").encoding
    with pytest.raises(InputError, match="holds no masks"):
        mask_encoding(tmp_path)
