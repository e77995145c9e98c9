from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from rlaif_ray.backtest.power import detectable, effective_observations, effective_trials
from rlaif_ray.errors import DataError


def test_independent_bars_count_in_full_and_dependent_ones_less():
    rng = np.random.default_rng(0)
    x = rng.normal(size=4000)
    assert effective_observations(x) > 3200
    y = x.copy()
    for k in range(1, len(y)):
        y[k] += 0.6 * y[k - 1]
    assert effective_observations(y) == pytest.approx(4000 / 4, rel=0.25)  # (1 + phi) / (1 - phi) = 4
    assert effective_observations(np.tile([1.0, -1.0], 100)) == 200  # what cancels out is not counted twice


def test_overlapping_outcomes_count_about_once_a_horizon():
    x = np.random.default_rng(1).normal(size=5020)
    overlapping = np.convolve(x, np.ones(21), "valid")
    assert effective_observations(overlapping) == pytest.approx(5000 / 21, rel=0.35)


def test_trials_count_by_their_correlation():
    rng = np.random.default_rng(2)
    common, own = rng.normal(size=(5000, 1)), rng.normal(size=(5000, 40))
    assert effective_trials(own) == pytest.approx(40, abs=1.5)
    assert effective_trials(own[:, :1]) == 1.0
    assert effective_trials(np.repeat(own[:, :1], 5, axis=1)) == pytest.approx(1.0)
    half = common + own
    assert effective_trials(half) == pytest.approx(0.5 + 0.5 * 40, abs=1.5)
    rho = (np.corrcoef(half.T).sum() - 40) / (40 * 39)
    assert effective_trials(half) == pytest.approx(rho + (1 - rho) * 40)
    assert effective_trials(half[:, ::-1]) == pytest.approx(effective_trials(half))
    assert effective_trials(np.stack([own[:, 0], -own[:, 0]], axis=1)) == 2.0  # never more than there are


def test_what_could_be_seen_by_hand():
    """10 years, one test at 5%: 1.645 + 0.842 = 2.486 standard errors of 1 / sqrt(10) a year."""
    x = np.random.default_rng(3).normal(0.001, 0.01, 2520)
    x = np.where(np.arange(2520) % 2, x, -x)  # no memory left that could add to the error
    found = detectable(x, bars_per_year=252)
    assert found.sharpe == pytest.approx((norm.ppf(0.95) + norm.ppf(0.8)) / np.sqrt(found.n_effective / 252))
    assert found.sharpe == pytest.approx(2.4865 / np.sqrt(10), rel=0.05)
    assert found.annual_excess == pytest.approx(found.sharpe * x.std() * np.sqrt(252))
    assert (found.bars, found.power) == (2520, 0.8)
    assert detectable(x, bars_per_year=252, hurdle=3.4).sharpe > found.sharpe > detectable(x, bars_per_year=252, power=0.5).sharpe


def test_it_is_seen_as_often_as_it_says():
    rng, seen = np.random.default_rng(4), 0
    for _ in range(1000):
        x = rng.normal(0, 0.01, 500)
        x += detectable(x, bars_per_year=1).annual_excess
        seen += x.mean() / (x.std() / np.sqrt(500)) > norm.ppf(0.95)
    assert seen / 1000 == pytest.approx(0.8, abs=0.03)


def test_what_says_nothing_is_refused():
    for bad in (np.full(100, 0.1), np.arange(10.0), np.append(np.arange(30.0), np.inf)):
        with pytest.raises(DataError):
            detectable(bad, bars_per_year=252)
        with pytest.raises(DataError):
            effective_observations(bad)
        with pytest.raises(DataError):
            effective_trials(bad[:, None])
    for keywords in ({"power": 1.0}, {"hurdle": 0.0}, {"hurdle": np.nan}):
        with pytest.raises(DataError):
            detectable(np.random.default_rng(0).normal(size=100), bars_per_year=252, **keywords)
