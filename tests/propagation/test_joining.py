"""Joining of two directions: the nearer and surer counts more, and the result beats either one."""

import numpy as np
import pytest

from s3_jax.errors import InputError
from s3_jax.propagation.joining import (
    Quantized,
    join,
    quantize,
    read_quantized,
    share,
    write_quantized,
)

SIZE = (24, 40)


def blob(left: int, inside: float = 0.95, outside: float = 0.02) -> np.ndarray:
    prob = np.full(SIZE, outside, np.float32)
    prob[6:18, left : left + 12] = inside
    return prob


def jaccard(found: np.ndarray, truth: np.ndarray) -> float:
    return (found & truth).sum() / (found | truth).sum()


def quantized(*probs: np.ndarray, ids=(1,)) -> Quantized:
    return quantize(np.stack([1 - sum(probs), *probs]).clip(0, 1).astype(np.float32), ids)


@pytest.mark.parametrize(
    ("given", "shown", "index", "expected"),
    [
        ([4], [4], 2, 0), ([4], [4], 4, 1), ([4], [4], 9, 1),
        ([0, 8], [0, 8], 2, 0.75), ([0, 8], [0, 8], 7, 0.125), ([0, 8, 10], [0, 8, 10], 8, 1),
        ([0, 4, 8], [0, 8], 5, 0.75), ([0, 8], [8], 5, 0), ([0, 8], [0], 5, 1),
    ],
)  # fmt: skip
def test_shares_fall_from_mask_to_mask(given, shown, index, expected):
    """The last three: an empty mask between, before, and after those that show the object."""
    assert share(given, shown, index) == pytest.approx(expected)


def test_the_nearer_direction_wins_where_they_disagree():
    forward, backward = quantized(blob(4)), quantized(blob(20))
    for near, left in ((0.9, 4), (0.1, 20)):
        np.testing.assert_array_equal(
            join(forward, backward, {1: near}).index_mask(), blob(left) > 0.5
        )


def test_the_surer_direction_wins_at_the_same_distance():
    forward, backward = quantized(blob(4, 0.6, 0.4)), quantized(blob(20, 0.99, 0.01))
    joined = join(forward, backward, {1: 0.5})
    np.testing.assert_array_equal(joined.index_mask(), blob(20) > 0.5)
    assert 0.5 < joined.confidence[1] <= 1


def test_an_object_that_one_direction_lost_comes_from_the_other():
    forward, backward = quantized(blob(4, 0.02)), quantized(blob(20))
    np.testing.assert_array_equal(join(forward, backward, {1: 0.6}).index_mask(), blob(20) > 0.5)


def test_objects_that_one_direction_knows_come_from_it():
    forward = quantized(blob(4), blob(24), ids=(5, 2))
    joined = join(forward, quantized(blob(24), ids=(2,)), {5: 1.0, 2: 0.5})
    assert joined.object_ids == (5, 2)
    np.testing.assert_array_equal(joined.index_mask() == 5, blob(4) > 0.5)
    np.testing.assert_array_equal(joined.index_mask() == 2, blob(24) > 0.5)
    np.testing.assert_allclose(joined.prob.sum(0), 1, atol=1e-5)
    assert join(forward, forward, {2: 0.5}).object_ids == (2,)


def test_two_equal_directions_are_that_direction():
    one = quantized(blob(4), blob(24), ids=(5, 2))
    joined = join(one, one, {5: 0.3, 2: 0.8})
    np.testing.assert_array_equal(joined.index_mask() == 5, blob(4) > 0.5)
    assert joined.confidence[5] > 0.9


def test_joined_masks_are_no_worse_than_either_direction():
    """Two trackers that drift off known masks, the farther from the given mask the more, and get
    less sure: as forwards and backwards do between two given frames."""
    rng = np.random.default_rng(0)
    frames, size = 21, (60, 90)
    rows, columns = np.indices(size)
    scores = []

    def disc(t: int, drift: float, doubt: float) -> np.ndarray:
        distance = np.hypot(rows - 30 - drift, columns - 20 - 2.3 * t - drift) - 12
        noise = rng.normal(0, doubt, size)
        return (1 / (1 + np.exp(distance / (1 + doubt) + noise))).astype(np.float32)

    for t in range(1, frames - 1):
        truth = disc(t, 0, 0) > 0.5
        ahead, back = t / frames, 1 - t / frames
        forward, backward = disc(t, 7 * ahead, 2 * ahead), disc(t, -7 * back, 2 * back)
        joined = join(quantized(forward), quantized(backward), {1: back}).index_mask() == 1
        scores.append([jaccard(mask, truth) for mask in (forward > 0.5, backward > 0.5, joined)])
    ahead, back, both = np.mean(scores, axis=0)
    assert both > max(ahead, back) + 0.05


def test_files_of_probabilities(tmp_path):
    found = quantized(blob(4), blob(24), ids=(300, 2))
    write_quantized(tmp_path / "0.npz", found)
    again = read_quantized(tmp_path / "0.npz")
    assert again.object_ids == (300, 2)
    np.testing.assert_array_equal(again.prob, found.prob)
    (tmp_path / "0.npz").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        read_quantized(tmp_path / "0.npz")
