"""Labels by hand: what came after each decision row, and when it may be learnt from."""

from __future__ import annotations

import numpy as np

from rlaif_ray.labels import closed_inside, forward_log_volatility, forward_returns, log_returns

RETURNS = np.array([np.nan, 0.10, -0.50, 0.20])[:, None]  # close 100, 110, 55, 66


def test_a_forward_return_runs_from_the_close_at_the_row() -> None:
    forward = forward_returns(RETURNS, (1, 3))[:, 0]
    np.testing.assert_allclose(forward[:, 0], [0.10, -0.50, 0.20, np.nan])
    np.testing.assert_allclose(forward[:, 1], [66 / 100 - 1, np.nan, np.nan, np.nan])


def test_log_volatility_is_half_the_log_of_the_mean_squared_log_return() -> None:
    squares = np.log1p(RETURNS[:, 0]) ** 2
    volatility = forward_log_volatility(RETURNS, (2,))[:, 0, 0]
    np.testing.assert_allclose(volatility[:2], [0.5 * np.log(squares[1:3].mean()), 0.5 * np.log(squares[2:4].mean())])
    assert np.isnan(volatility[2:]).all()


def test_standing_still_has_the_floor_volatility() -> None:
    np.testing.assert_allclose(forward_log_volatility(np.zeros((3, 1)), (1,))[0, 0, 0], np.log(1e-6))


def test_a_gap_in_the_future_leaves_no_label() -> None:
    gap = np.array([0.0, 0.0, np.nan, 0.0, 0.0])[:, None]
    assert np.isfinite(forward_returns(gap, (2,))[:, 0, 0]).tolist() == [False, False, True, False, False]


def test_a_total_loss_has_no_logarithm() -> None:
    assert np.isnan(log_returns(np.array([[-1.0]]))).all()


def test_a_label_closes_inside_when_its_last_bar_does() -> None:
    assert np.flatnonzero(closed_inside(10, 2, slice(3, 8))).tolist() == [3, 4, 5]
