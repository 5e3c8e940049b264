import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3_jax.benchmarks.metrics import boundary_radius, clear_void, score_frame, statistics
from tests.benchmarks.sequences import GOLDEN_CASES, read_golden

VOID = 255


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_equals_the_public_evaluation(case: str, goldens) -> None:
    annotations, predictions, objects = read_golden(goldens, case)
    scores = []
    for annotation, prediction in zip(annotations[1:-1], predictions[1:-1], strict=True):
        annotation, cleared = clear_void(annotation, [prediction], VOID)
        scores.append(score_frame(annotation, cleared, list(objects)))
    for column, expected in enumerate(objects.values()):
        for name, values in (
            ("J", np.array([frame.region[0, column] for frame in scores])),
            ("F", np.array([frame.boundary[0, column] for frame in scores])),
        ):
            np.testing.assert_allclose(values, expected[name], rtol=0, atol=1e-12)
            found = dataclasses.astuple(statistics(values))
            np.testing.assert_allclose(
                found, expected[f"{name}_mean_recall_decay"], rtol=0, atol=1e-12
            )


def blobs(seed: int, ids: int, size: tuple[int, int] = (30, 50)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, ids + 1, (size[0] // 5 + 1, size[1] // 5 + 1))
    return np.kron(coarse, np.ones((5, 5), int))[: size[0], : size[1]].astype(np.uint8)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 4))
def test_measures_are_symmetric(first: int, second: int, ids: int) -> None:
    a, b = blobs(first, ids), blobs(second, ids)
    objects = range(1, ids + 1)
    forth, back = score_frame(a, [b], objects), score_frame(b, [a], objects)
    np.testing.assert_array_equal(forth.region, back.region)
    np.testing.assert_allclose(forth.boundary, back.boundary, rtol=0, atol=1e-12)
    assert (forth.region >= 0).all() and (forth.boundary <= 1).all()


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_runs_and_number_types_do_not_matter(seed: int, ids: int) -> None:
    annotation = blobs(seed, ids)
    runs = [blobs(seed + 1, ids), blobs(seed + 2, ids), annotation]
    objects = range(1, ids + 1)
    together = score_frame(annotation, runs, objects)
    for row, run in enumerate(runs):
        alone = score_frame(annotation.astype(np.int32), [run.astype(np.int32)], objects)
        np.testing.assert_array_equal(together.region[row], alone.region[0])
        np.testing.assert_array_equal(together.boundary[row], alone.boundary[0])
    assert (together.region[2] == 1).all() and (together.boundary[2] == 1).all()


def test_absent_objects() -> None:
    empty, full = np.zeros((20, 30), np.uint8), np.ones((20, 30), np.uint8)
    square = np.zeros((20, 30), np.uint8)
    square[5:10, 5:10] = 1

    def both(annotation, prediction):
        scores = score_frame(annotation, [prediction], [1])
        return scores.region[0, 0], scores.boundary[0, 0]

    assert both(empty, empty) == (1, 1)
    assert both(empty, square) == (0, 0)
    assert both(square, empty) == (0, 0)
    assert both(full, full) == (1, 1)  # no boundary at all


def test_ids_beyond_a_byte() -> None:
    annotation = np.zeros((20, 30), np.int32)
    annotation[2:9, 3:12] = 70_000
    annotation[12:18, 3:12] = 256
    scores = score_frame(annotation, [annotation], [256, 70_000])
    assert (scores.region == 1).all()
    assert scores.annotation_areas.tolist() == [54, 63]


def test_void_takes_pixels_out_of_both() -> None:
    annotation = np.zeros((10, 10), np.uint8)
    annotation[:, :4] = 1
    annotation[:, 4:6] = VOID
    prediction = np.zeros_like(annotation)
    prediction[:, :6] = 1
    cleared, (own,) = clear_void(annotation, [prediction], VOID)
    assert score_frame(cleared, [own], [1]).region[0, 0] == 1
    assert cleared.dtype == own.dtype == np.uint8
    assert (annotation == VOID).sum() == 20, "inputs are left alone"


@pytest.mark.parametrize(
    ("height", "width", "radius"), [(480, 854, 8), (40, 56, 1), (1080, 1920, 18)]
)
def test_radius(height: int, width: int, radius: int) -> None:
    assert boundary_radius(height, width) == radius


def test_statistics_of_few_and_of_many_frames() -> None:
    assert dataclasses.astuple(statistics(np.array([0.6]))) == (0.6, 1.0, 0.0)
    ramp = statistics(np.linspace(1, 0, 1001))
    assert ramp.mean == pytest.approx(0.5)
    assert ramp.recall == pytest.approx(0.5, abs=1e-3)
    assert ramp.decay == pytest.approx(0.75)
