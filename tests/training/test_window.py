import jax.numpy as jnp
import numpy as np
import pytest

from s3_jax.training.window import LEAST_WINDOWS, Window


def metrics(total, finite=1.0):
    return {"total": jnp.float32(total), "finite": jnp.float32(finite)}


def report_of(window, losses, step):
    for loss in losses:
        window.add(metrics(loss))
    return window.close(step)


def test_reports_means_and_every_loss():
    window = Window(divergence=10.0)
    report = report_of(window, [1.0, 2.0, 6.0], step=8)
    assert report.metrics == {"total": 3.0, "finite": 1.0}
    assert report.losses == [1.0, 2.0, 6.0]
    assert report.step == 8
    assert report.bad_step is None
    assert report.seconds > 0
    assert len(window) == 0


@pytest.mark.parametrize(("loss", "word"), [(np.nan, "loss"), (np.inf, "loss"), (2.0, "gradient")])
def test_names_the_first_step_that_was_not_finite(loss, word):
    window = Window(divergence=10.0)
    window.add(metrics(1.0))
    window.add(metrics(loss, finite=0.0))
    window.add(metrics(1.0, finite=0.0))
    report = window.close(23)
    assert report.bad_step == 21
    assert word in report.problem


def test_divergence_is_told_by_the_median_of_windows():
    window = Window(divergence=10.0)
    for i in range(LEAST_WINDOWS):
        assert report_of(window, [1.0, 3.0], step=2 * i + 2).bad_step is None
    report = report_of(window, [20.0, 50.0], step=102)
    assert report.bad_step == 101
    assert "diverges" in report.problem
    assert report_of(window, [19.0, 19.0], step=104).bad_step is None


def test_a_rising_loss_is_nothing_before_there_is_a_median_or_if_not_asked_for():
    window = Window(divergence=10.0)
    assert report_of(window, [1.0], 1).bad_step is None
    assert report_of(window, [1000.0], 2).bad_step is None
    careless = Window(divergence=0.0)
    for step in range(2 * LEAST_WINDOWS):
        assert report_of(careless, [10.0**step], step + 1).bad_step is None
