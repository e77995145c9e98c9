"""Weights by hand on two and three names, and the laws: none below 0, none above the cap, never more than the whole."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from rlaif_ray.errors import DataError
from rlaif_ray.portfolio.allocation import hierarchical_risk_parity, mean_variance, min_variance, shrunk_covariance

SOLVER = 1e-5  # weights are as good as an interior-point solver says them: 10 USD of a million
TWO = {"risk_aversion": 10.0, "hold_bars": 5}


def independent(volatilities: list[float], rows: int = 4096) -> np.ndarray:
    """Returns whose sample covariance is diagonal to the last bit: rows of a Hadamard matrix, scaled."""
    signs = np.array([[(-1.0) ** bin(t & (1 << a)).count("1") for a in range(len(volatilities))] for t in range(rows)])
    return signs * volatilities


def test_min_variance_of_two_independent_names_is_inverse_variance() -> None:
    # variances 1 and 4: weights 4/5 and 1/5
    assert min_variance(independent([0.01, 0.02])) == pytest.approx([0.8, 0.2], abs=1e-3)  # a little is shrunk
    assert min_variance(independent([0.01, 0.02]), max_weight=0.6) == pytest.approx([0.6, 0.4])
    assert min_variance(independent([0.01, 0.02]), max_weight=0.1) == pytest.approx([0.5, 0.5])  # a cap below 1/A is 1/A


def test_hrp_of_three_names_by_hand() -> None:
    """B copies A but for a little noise; C is alone and as wild. The pair shares what one name gets."""
    rng = np.random.default_rng(0)
    a, c = rng.normal(0, 0.01, (2, 5000))
    weights = hierarchical_risk_parity(np.stack([a, a + rng.normal(0, 1e-4, 5000), c], axis=1))
    assert weights == pytest.approx([0.25, 0.25, 0.5], abs=0.01)
    assert hierarchical_risk_parity(a[:, None]).tolist() == [1.0]


def test_mean_variance_without_costs_by_hand() -> None:
    # 10/2 * 2 * 4e-4 * w = m: w = m / 0.004
    covariance, cash = np.eye(2) * 4e-4, np.zeros(2)
    free = mean_variance(np.array([8e-4, 4e-4]), covariance, cash, cost_per_side=0.0, fully_invested=False, **TWO)
    assert free == pytest.approx([0.2, 0.1], abs=SOLVER)
    # fully invested: the difference of the two stays 0.1
    full = mean_variance(np.array([8e-4, 4e-4]), covariance, cash, cost_per_side=0.0, **TWO)
    assert full == pytest.approx([0.55, 0.45], abs=SOLVER)
    # the same around a benchmark of 70 to 30, whose risk is none
    tilted = mean_variance(np.array([8e-4, 4e-4]), covariance, cash, cost_per_side=0.0, benchmark_A=np.array([0.7, 0.3]), **TWO)
    assert tilted == pytest.approx([0.75, 0.25], abs=SOLVER)


def test_what_does_not_earn_its_cost_is_not_traded() -> None:
    """A move of d from 50/50 gains 4e-4 d a bar at first and costs 2 d * rate / 5: no trade from a rate of 10 bps on."""
    half, covariance = np.array([0.5, 0.5]), np.eye(2) * 4e-4
    for rate, expected in ((0.0, 0.55), (0.0005, 0.525), (0.0011, 0.5)):
        weights = mean_variance(np.array([8e-4, 4e-4]), covariance, half, cost_per_side=rate, **TWO)
        assert weights == pytest.approx([expected, 1 - expected], abs=SOLVER)


def test_nothing_expected_is_cash_or_the_benchmark() -> None:
    none, covariance, equal = np.zeros(3), np.diag([1e-4, 2e-4, 3e-4]), np.full(3, 1 / 3)
    assert mean_variance(none, covariance, equal, cost_per_side=0.0, fully_invested=False, **TWO) == pytest.approx(none, abs=SOLVER)
    assert mean_variance(none, covariance, none, cost_per_side=0.001, benchmark_A=equal, **TWO) == pytest.approx(equal, abs=SOLVER)


def test_mean_variance_equals_a_general_solver() -> None:
    """SLSQP on purchases and sales, both at least 0."""
    rng = np.random.default_rng(1)
    n, cap, rate = 6, 0.35, 0.002
    returns = rng.normal(0, 0.015, (200, n)) + rng.normal(0, 0.01, (200, 1))
    covariance, expected, previous = shrunk_covariance(returns), rng.normal(0, 1e-3, n), rng.dirichlet(np.ones(n))
    found = mean_variance(
        expected, covariance, previous, risk_aversion=20.0, cost_per_side=rate, hold_bars=5, max_weight=cap, fully_invested=False
    )

    def utility(w: np.ndarray) -> float:
        return expected @ w - 10.0 * w @ covariance @ w - rate / 5 * np.abs(w - previous).sum()

    def loss(trades: np.ndarray) -> float:
        w = previous + trades[:n] - trades[n:]
        return -1e4 * (expected @ w - 10.0 * w @ covariance @ w - rate / 5 * trades.sum())

    rules = [
        {"type": "ineq", "fun": lambda x: previous + x[:n] - x[n:]},
        {"type": "ineq", "fun": lambda x: cap - (previous + x[:n] - x[n:])},
        {"type": "ineq", "fun": lambda x: 1.0 - (previous + x[:n] - x[n:]).sum()},
    ]
    start = np.concatenate([np.zeros(n), np.maximum(previous - cap, 0)])
    solved = minimize(loss, start, bounds=[(0, 1)] * (2 * n), constraints=rules, method="SLSQP", options={"ftol": 1e-12, "maxiter": 500})
    theirs = previous + solved.x[:n] - solved.x[n:]
    assert utility(found) >= utility(theirs) - 1e-9
    assert found == pytest.approx(theirs, abs=1e-3)
    assert found.min() >= 0 and found.max() <= cap + 1e-8 and found.sum() <= 1 + 1e-12


@pytest.mark.parametrize("allocate", [min_variance, hierarchical_risk_parity])
def test_weights_of_thirty_names_are_weights(allocate) -> None:
    rng = np.random.default_rng(2)
    returns = rng.normal(0, 0.01, (252, 30)) * rng.uniform(0.5, 2, 30) + rng.normal(0, 0.01, (252, 1))
    weights = allocate(returns, max_weight=0.08)
    assert weights.min() >= 0 and weights.max() <= 0.08 + 1e-8 and weights.sum() == pytest.approx(1.0)
    assert np.array_equal(weights, allocate(returns, max_weight=0.08))
    # a market that moves together: the least variance is less than that of equal weight
    covariance, equal = shrunk_covariance(returns), np.full(30, 1 / 30)
    assert weights @ covariance @ weights < equal @ covariance @ equal


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="1 of them not finite"):
        min_variance(np.array([[0.01, np.nan], [0.0, 0.01]]))
    with pytest.raises(DataError, match="two rows or more"):
        hierarchical_risk_parity(np.zeros((1, 3)))
    with pytest.raises(DataError, match="expected finite"):
        mean_variance(np.array([np.nan]), np.eye(1), np.zeros(1), cost_per_side=0.0, **TWO)
    with pytest.raises(DataError, match="expected finite"):
        mean_variance(np.zeros(2), np.eye(3), np.zeros(2), cost_per_side=0.0, **TWO)
