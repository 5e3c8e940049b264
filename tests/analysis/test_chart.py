"""Charts as pictures."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from s3_jax.analysis import chart
from s3_jax.analysis.chart import Series, line_chart


def _columns(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Columns below the legend in which the colour (BGR, as the module has it) is drawn."""
    drawn = np.all(image[chart.TOP + 30 :] == colour[::-1], axis=-1)
    return np.flatnonzero(drawn.any(axis=0))


def test_a_line_spans_the_axis_and_falls_with_its_values() -> None:
    image = line_chart("t", "x", "y", [Series("s", [(1.0, 90.0), (10.0, 30.0), (100.0, 10.0)])])
    assert image.shape == (chart.HEIGHT, chart.WIDTH, 3)
    columns = _columns(image, chart.COLOURS[0])
    assert columns.min() < chart.LEFT + 20
    assert columns.max() > chart.WIDTH - chart.RIGHT - 20
    first, last = (
        np.flatnonzero(np.all(image[chart.TOP + 30 :, x] == chart.COLOURS[0][::-1], -1)).mean()
        for x in (columns.min() + 2, columns.max() - 2)
    )
    assert first < last  # higher up


def test_equal_ratios_are_equal_distances() -> None:
    axes = chart.log_axes(Figure(), [(1.0, 1.0), (100.0, 1.0)], [1.0, 10.0, 100.0])
    x = axes.transData.transform([(1.0, 1.0), (10.0, 1.0), (100.0, 1.0)])[:, 0]
    assert x[1] - x[0] == pytest.approx(x[2] - x[1])


def test_a_single_point_can_be_drawn() -> None:
    image = line_chart("t", "x", "y", [Series("s", [(3.0, 4.0)])])
    assert len(_columns(image, chart.COLOURS[0]))


@pytest.mark.parametrize("points", [[], [(0.0, 1.0)], [(1.0, -1.0)]])
def test_what_has_no_logarithm_is_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        line_chart("t", "x", "y", [Series("s", points)])


def test_ticks_are_round_numbers() -> None:
    axes = chart.log_axes(Figure(), [(1.0, 0.9 * 1.4), (1.0, 25.0 / 1.4)], [1.0])
    low, high = axes.get_ylim()
    shown = [tick for tick in axes.get_yticks() if low <= tick <= high]
    assert shown == pytest.approx([1, 2, 5, 10, 20])
