"""Labels by hand: what came after each decision row, and when it may be learnt from."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif_ray.errors import DataError
from rlaif_ray.labels import (
    closed_inside,
    closes_at,
    forward_log_volatility,
    forward_returns,
    log_returns,
    residual_to_market,
    residual_to_sector,
    trailing_beta,
    volatility_scaled,
)

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


def test_a_row_says_where_its_label_closes() -> None:
    assert closes_at(4, (1, 3)).tolist() == [[1, 3], [2, -1], [3, -1], [-1, -1]]


def test_the_market_residual_takes_beta_times_the_market_out() -> None:
    forward = np.array([0.05, 0.01]).reshape(1, 2, 1)
    residual = residual_to_market(forward, np.array([[2.0, np.nan]]), np.array([[0.02]]))
    np.testing.assert_allclose(residual[0, :, 0], [0.01, np.nan])


def test_the_sector_residual_leaves_the_name_itself_out() -> None:
    forward = np.array([0.06, 0.03, 0.01, 0.50, np.nan, 0.20]).reshape(1, 6, 1)
    residual = residual_to_sector(forward, ["a", "a", "a", "b", "b", "c"])
    np.testing.assert_allclose(residual[0, :, 0], [0.04, -0.005, -0.035, np.nan, np.nan, np.nan], atol=1e-15)


def test_scaled_by_what_the_volatility_says_of_the_horizon() -> None:
    forward = np.array([0.06, 0.06]).reshape(1, 2, 1)
    np.testing.assert_allclose(volatility_scaled(forward, np.array([[0.01, 0.0]]), (9,))[0, :, 0], [2.0, np.nan])


def test_beta_is_the_slope_over_the_window_and_no_more() -> None:
    rng = np.random.default_rng(0)
    market, returns = rng.normal(size=40), rng.normal(size=(40, 2))
    returns[12, 0] = np.nan
    betas = trailing_beta(returns, market, 10)
    assert np.isnan(betas[:9]).all() and np.isfinite(betas[9:]).all()
    np.testing.assert_allclose(betas[30], [np.polyfit(market[21:31], returns[21:31, a], 1)[0] for a in range(2)])
    known = [t for t in range(11, 21) if t != 12]
    np.testing.assert_allclose(betas[20, 0], np.polyfit(market[known], returns[known, 0], 1)[0])
    assert np.array_equal(trailing_beta(returns[:25], market[:25], 10), betas[:25], equal_nan=True)
    assert np.isnan(trailing_beta(returns, np.zeros(40), 10)).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: residual_to_market(np.zeros((3, 2, 1)), np.zeros((3, 2)), np.zeros((3, 2))),
        lambda: residual_to_sector(np.zeros((3, 2, 1)), ["a"]),
        lambda: volatility_scaled(np.zeros((3, 2, 1)), np.zeros((2, 2)), (1,)),
        lambda: trailing_beta(np.zeros((3, 2)), np.zeros(4), 2),
        lambda: trailing_beta(np.zeros((3, 2)), np.zeros(3), 1),
    ],
)
def test_what_does_not_fit_together_is_refused(call) -> None:
    with pytest.raises(DataError, match="expected"):
        call()
