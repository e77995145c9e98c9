"""Scores of forecasts by hand."""

from __future__ import annotations

import numpy as np

from rlaif_ray.core import ForecastTable, Target
from rlaif_ray.forecast.scores import calibration, outcomes, pinball, qlike
from tests.markets import daily

CUBE = daily([100.0, 110.0, 99.0, 99.0])  # +10%, -10%, 0%


def table(values, target: Target = "return", levels=(0.1, 0.5, 0.9)) -> ForecastTable:
    values = np.asarray(values, np.float32)[:, None, None, :]
    return ForecastTable(CUBE.known_at[: len(values)], target, CUBE.symbols, (1,), levels, values, "by hand")


def test_outcomes_are_those_that_follow_the_forecast() -> None:
    np.testing.assert_allclose(outcomes(table(np.zeros((4, 3))), CUBE)[:, 0, 0], [0.1, -0.1, 0.0, np.nan], atol=1e-12)


def test_pinball_charges_a_miss_below_by_the_level_and_above_by_the_rest() -> None:
    np.testing.assert_allclose(pinball(np.array([[0.0], [0.0]]), np.array([2.0, -2.0]), (0.9,)), [1.8, 0.2])


def test_qlike_is_zero_when_the_variance_is_right_and_worse_when_too_small_than_too_large() -> None:
    truth = np.log([0.01, 0.01, 0.01])
    right, half, double = qlike(np.log([[0.01], [0.005], [0.02]]), truth)
    assert abs(right) < 1e-12 and half > double > 0


def test_calibration_counts_what_lay_at_or_below_each_quantile() -> None:
    scores = calibration(table([[-0.2, 0.05, 0.2], [-0.05, 0.0, 0.05], [-0.1, 0.0, 0.1], [0.0, 0.0, 0.0]]), CUBE)["1"]
    assert scores["count"] == 3  # the last row's outcome is not known
    np.testing.assert_allclose(list(scores["coverage"].values()), [1 / 3, 2 / 3, 1.0])
    np.testing.assert_allclose(scores["interval_80"], 2 / 3)
    np.testing.assert_allclose(scores["mae_to_naive"], (0.05 + 0.1 + 0.0) / (0.1 + 0.1 + 0.0), rtol=1e-5)


def test_log_volatility_is_scored_by_qlike() -> None:
    moves = np.log([1.1, 0.9])
    scores = calibration(table(np.repeat(np.log(np.abs(moves))[:, None], 3, axis=1), "log_volatility"), CUBE)["1"]
    assert abs(scores["qlike"]) < 1e-6 and "mae_to_naive" not in scores


def test_nothing_closed_nothing_scored() -> None:
    last = ForecastTable(CUBE.known_at[3:], "return", CUBE.symbols, (1,), (0.5,), np.zeros((1, 1, 1, 1), np.float32), "x")
    assert calibration(last, CUBE) == {}
