from __future__ import annotations

import numpy as np
import pytest
from arch.bootstrap import optimal_block_length

from rlaif_ray.backtest.significance import (
    Interval,
    block_length,
    block_lengths,
    bootstrap_variance,
    edge,
    percentile_interval,
    resampled_moments,
    stationary_indices,
    stationary_weights,
)
from rlaif_ray.errors import DataError


def autoregressive(rng: np.random.Generator, n: int, phi: float) -> np.ndarray:
    x = rng.normal(0, 0.01, n)
    for k in range(1, n):
        x[k] += phi * x[k - 1]
    return x


def test_indices_run_on_and_wrap_with_the_mean_length_asked_for():
    index = stationary_indices(500, 10.0, 400, np.random.default_rng(0))
    assert index.min() >= 0
    assert index.max() < 500
    runs_on = (np.diff(index, axis=1) % 500) == 1
    assert 1 / (1 - runs_on.mean()) == pytest.approx(10.0, rel=0.03)
    assert ((index[:, :-1] == 499) & (index[:, 1:] == 0)).any()
    assert np.bincount(index.ravel(), minlength=500) / 400 == pytest.approx(np.ones(500), abs=0.35)


def test_a_block_of_one_is_the_plain_bootstrap():
    index = stationary_indices(1000, 1.0, 100, np.random.default_rng(0))
    assert ((np.diff(index, axis=1) % 1000) == 1).mean() == pytest.approx(1 / 1000, abs=5e-4)


def test_the_block_length_is_politis_whites():
    rng = np.random.default_rng(4)
    series = autoregressive(rng, 2000, 0.6)
    assert block_length(series) == pytest.approx(optimal_block_length(series)["stationary"].iloc[0])
    assert block_length(series) > 5 * block_length(rng.normal(size=2000))
    assert block_length(np.full(100, 0.001)) == 1.0
    assert block_length(series[:5]) == 1.0


@pytest.mark.parametrize("bars", [20, 21, 60, 253, 2521])
def test_block_lengths_of_columns_are_archs(bars):
    rng = np.random.default_rng(bars)
    columns = np.stack([autoregressive(rng, bars, phi) for phi in (-0.5, 0.0, 0.0, 0.3, 0.9, 0.99)], axis=1)
    expected = np.clip(optimal_block_length(columns)["stationary"].to_numpy(), 1, bars / 3)
    assert block_lengths(columns) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("bars", "block"), [(60, 1.0), (60, 5.0), (61, 5.0)])
def test_the_bootstraps_own_variance_needs_no_resample(bars, block):
    series = autoregressive(np.random.default_rng(2), bars, 0.6)[:, None]
    weights = stationary_weights(bars, block, 40_000, np.random.default_rng(3))
    assert bootstrap_variance(series, block)[0] == pytest.approx(bars * (weights @ series / bars).var(), rel=0.03)


def test_weights_count_the_indices_of_the_same_draws():
    for block in (1.0, 7.0):
        index = stationary_indices(50, block, 20, np.random.default_rng(1))
        weights = stationary_weights(50, block, 20, np.random.default_rng(1))
        assert np.array_equal(weights, [np.bincount(row, minlength=50) for row in index])


def test_moments_of_resamples_are_those_of_the_series():
    series = np.random.default_rng(5).normal(0.1, 2.0, 1000)
    moments = resampled_moments(series, resamples=2000, seed=0)
    assert moments[:, 0].mean() == pytest.approx(series.mean(), abs=0.01)
    assert moments[:, 0].std() == pytest.approx(2.0 / np.sqrt(1000), rel=0.1)
    assert moments[:, 1].mean() == pytest.approx(series.std(ddof=1), rel=0.01)
    assert np.array_equal(moments, resampled_moments(series, resamples=2000, seed=0))
    assert not np.array_equal(moments, resampled_moments(series, resamples=2000, seed=1))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """300 samples of 250 normal returns: 95% +- 2.5% (two standard errors), and noise is claimed 2.5% of the time."""
    rng = np.random.default_rng(6)
    found = [edge(rng.normal(0, 0.01, 250), np.zeros(250), resamples=500, seed=k) for k in range(300)]
    truth = -0.5 * 0.01**2  # the mean log return of such a return
    assert np.mean([i.low <= truth <= i.high for i in found]) == pytest.approx(0.95, abs=0.03)
    assert np.mean([i.claim for i in found]) <= 0.055


def test_dependence_widens_the_interval():
    """For phi = 0.6 the mean has twice the standard error that independent draws would give it."""
    series = autoregressive(np.random.default_rng(7), 3000, 0.6)
    blocks = resampled_moments(series, resamples=1000, seed=0)[:, 0].std()
    assert 1.5 < blocks / (series.std() / np.sqrt(3000)) < 2.5


def test_an_edge_is_claimed_where_there_is_one():
    benchmark = np.random.default_rng(8).normal(0, 0.01, 1000)
    noise = np.random.default_rng(9).normal(0, 0.002, 1000)
    for mean, claim in ((0.0005, True), (-0.0005, False)):
        found = edge(benchmark + mean + noise, benchmark, seed=0)
        assert found.value == pytest.approx(mean, abs=2e-4)
        assert found.low < found.value < found.high
        assert found.claim == claim


def test_an_edge_that_cannot_be_said_is_not_claimed():
    same = np.full(100, 0.01)
    assert edge(same, same, seed=0) == Interval(0.0, 0.0, 0.0, claim=False)
    assert edge(same, np.zeros(100), seed=0).claim  # every bar gained over it
    few = edge(np.full(5, 0.01), np.zeros(5), seed=0)
    assert few.value == pytest.approx(np.log(1.01))
    assert np.isnan([few.low, few.high]).all()
    assert not few.claim
    none = edge(np.array([]), np.array([]), seed=0)
    assert np.isnan([none.value, none.low, none.high]).all()
    for r, b in ((same, same[:5]), (np.full(100, np.nan), same), (same, np.full(100, np.inf))):
        with pytest.raises(DataError):
            edge(r, b, seed=0)


def test_an_interval_needs_the_statistic_in_nearly_every_resample():
    values = np.arange(100.0)
    assert percentile_interval(values) == pytest.approx((2.475, 96.525))
    values[:5] = np.nan
    assert np.isfinite(percentile_interval(values)).all()
    values[5] = np.nan
    assert np.isnan(percentile_interval(values)).all()
