from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kurtosis, norm, skew

from rlaif_ray.backtest.sharpe import (
    Moments,
    deflated_sharpe,
    expected_maximum_sharpe,
    long_run_variance,
    minimum_track_record,
    probabilistic_sharpe,
    sharpe_difference,
)
from rlaif_ray.errors import DataError

HEDGE_FUND = Moments(sharpe=0.458, skew=-2.448, kurtosis=10.164, bars=24)  # the monthly example of the 2012 paper


def pair(rng: np.random.Generator, n: int, apart: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Two fat-tailed series with correlation 1/2 and variance that clusters; the first has `apart` more Sharpe per bar."""
    heat = np.exp(0.3 * np.sin(np.arange(n) / 20))
    market, own = rng.standard_t(5, n), rng.standard_t(5, (2, n))
    x = 0.01 * heat * (market + own) / np.sqrt(2 * 5 / 3)
    return x[0] + apart * 0.01, x[1]


def test_the_probabilistic_ratio_of_the_paper():
    """Bailey and Lopez de Prado (2012): 0.982 if returns were normal, 0.913 as they are."""
    assert probabilistic_sharpe(Moments(0.458, 0.0, 3.0, 24)) == pytest.approx(0.982, abs=5e-4)
    assert probabilistic_sharpe(HEDGE_FUND) == pytest.approx(0.913, abs=5e-4)


def test_the_track_records_of_the_paper():
    """2.73, 2.83 and 3.24 years of daily, weekly and monthly normal returns tell a Sharpe of 2 from 1; 4.99 years of hedge-fund months."""
    for bars_per_year, years in ((252, 2.73), (52, 2.83), (12, 3.24)):
        found = Moments(2 / np.sqrt(bars_per_year), 0.0, 3.0, 1)
        assert minimum_track_record(found, threshold=1 / np.sqrt(bars_per_year)) / bars_per_year == pytest.approx(years, abs=0.005)
    found = Moments(2 / np.sqrt(12), -0.72, 5.78, 1)
    assert minimum_track_record(found, threshold=1 / np.sqrt(12)) / 12 == pytest.approx(4.99, abs=0.005)


def test_after_the_minimum_track_record_the_probability_is_the_confidence():
    bars = minimum_track_record(HEDGE_FUND, threshold=0.1, confidence=0.9)
    enough = Moments(HEDGE_FUND.sharpe, HEDGE_FUND.skew, HEDGE_FUND.kurtosis, bars)
    assert probabilistic_sharpe(enough, threshold=0.1) == pytest.approx(0.9, abs=1e-12)
    assert minimum_track_record(HEDGE_FUND, threshold=0.458) == np.inf


def test_the_deflated_ratio_of_the_paper():
    """Bailey and Lopez de Prado (2014): threshold 0.1132 a day and 0.9004 after 100 trials; 46 would have left 0.9505."""
    found = Moments(2.5 / np.sqrt(250), -3.0, 10.0, 1250)
    variance = 0.5 / 250
    assert expected_maximum_sharpe(trials=100, variance=variance) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe(found, trials=100, variance=variance) == pytest.approx(0.9004, abs=5e-5)
    assert deflated_sharpe(found, trials=46, variance=variance) == pytest.approx(0.9505, abs=5e-5)


def test_the_expected_maximum_is_that_of_normal_draws():
    draws = np.random.default_rng(0).normal(0, 0.1, (4000, 50)).max(axis=1).mean()
    assert expected_maximum_sharpe(trials=50, variance=0.01) == pytest.approx(draws, rel=0.02)
    assert expected_maximum_sharpe(trials=1, variance=0.01) == 0.0
    rising = [expected_maximum_sharpe(trials=n, variance=0.01) for n in (1, 1.01, 1.5, 2, 3, 10, 1000)]
    assert rising == sorted(rising)


def test_one_trial_is_not_deflated():
    assert deflated_sharpe(HEDGE_FUND, trials=1, variance=1.0) == probabilistic_sharpe(HEDGE_FUND)


def test_moments_are_scipys():
    r = np.random.default_rng(1).gamma(2.0, 0.01, 500) - 0.015
    found = Moments.of(r)
    assert found.sharpe == pytest.approx(r.mean() / r.std(ddof=1))
    assert found.skew == pytest.approx(skew(r))
    assert found.kurtosis == pytest.approx(kurtosis(r, fisher=False))
    assert found.bars == 500


def test_what_has_no_ratio_is_refused():
    for bad in (np.full(50, 0.01), np.append(np.ones(30), np.nan), np.ones((5, 5)), np.arange(5.0)):
        with pytest.raises(DataError):
            Moments.of(bad)
    with pytest.raises(DataError, match="without variance"):
        probabilistic_sharpe(Moments(1.0, 2.0, 5.0, 100))  # two values, as skewed as they can be
    with pytest.raises(DataError, match="more than one"):
        probabilistic_sharpe(Moments(1.0, 0.0, 3.0, 1))
    for trials, variance in ((0, 0.1), (10, -0.1), (10, np.nan), (np.nan, 0.1)):
        with pytest.raises(DataError):
            expected_maximum_sharpe(trials=trials, variance=variance)


def test_long_run_variance_is_that_of_an_autoregression():
    rng = np.random.default_rng(2)
    x = rng.normal(size=20_000)
    assert long_run_variance(x) == pytest.approx(1.0, rel=0.05)
    for phi in (0.6, -0.4):
        y = x.copy()
        for k in range(1, len(y)):
            y[k] += phi * y[k - 1]
        assert long_run_variance(y) == pytest.approx(1 / (1 - phi) ** 2, rel=0.1)


def test_the_standard_error_is_the_direct_formula():
    """Gradient and covariance matrix of the four moments written out, for returns without memory (Memmel 2003 if normal)."""
    rng = np.random.default_rng(3)
    a, b = rng.multivariate_normal([0.05, 0.02], [[1, 0.5], [0.5, 1]], 20_000).T
    found = sharpe_difference(a, b, bars_per_year=1, block=1, seed=0)
    moments = np.stack([a, b, a**2, b**2])
    m, s = moments.mean(axis=1), np.cov(moments, bias=True)
    v = [m[2] - m[0] ** 2, m[3] - m[1] ** 2]
    slope = np.array([m[2] / v[0] ** 1.5, -m[3] / v[1] ** 1.5, -0.5 * m[0] / v[0] ** 1.5, 0.5 * m[1] / v[1] ** 1.5])
    assert found.value == pytest.approx(m[0] / np.sqrt(v[0]) - m[1] / np.sqrt(v[1]), abs=1e-12)
    assert found.error == pytest.approx(np.sqrt(slope @ s @ slope / 20_000), rel=0.05)
    memmel = np.sqrt((2 - 2 * 0.5 + 0.5 * (0.05**2 + 0.02**2 - 2 * 0.05 * 0.02 * 0.25)) / 20_000)
    assert found.error == pytest.approx(memmel, rel=0.05)
    assert found.p_value == pytest.approx(2 * norm.sf(abs(found.value) / found.error), abs=0.03)


def test_the_resamples_are_studentised_by_their_own_blocks():
    """Section 3.2 of the paper written out in NumPy, on the same blocks."""
    rng, block, resamples = np.random.default_rng(4), 7, 50
    a, b = pair(rng, 151)
    found = sharpe_difference(a, b, bars_per_year=1, block=block, resamples=resamples, seed=9)
    y, distances = np.stack([a, b, a**2, b**2], axis=1), []
    for starts in np.random.default_rng(9).integers(0, 151, (resamples, 151 // block)):
        index = (starts[:, None] + np.arange(block)) % 151
        m = y[index].reshape(-1, 4).mean(axis=0)
        d = np.sqrt(m[2:] - m[:2] ** 2)
        slope = np.array([m[2] / d[0] ** 3, -m[3] / d[1] ** 3, -0.5 * m[0] / d[0] ** 3, 0.5 * m[1] / d[1] ** 3])
        zeta = (y[index] - m).sum(axis=1) / np.sqrt(block)
        error = np.sqrt(slope @ (zeta.T @ zeta / len(starts)) @ slope / index.size)
        distances.append(abs(m[0] / d[0] - m[1] / d[1] - found.value) / error)
    assert found.p_value == (1 + np.sum(np.array(distances) >= abs(found.value) / found.error)) / (resamples + 1)
    assert found.high - found.value == pytest.approx(np.quantile(distances, 0.95) * found.error, rel=1e-9)


def test_laws_of_the_difference():
    a, b = pair(np.random.default_rng(5), 750, apart=0.1)
    found = sharpe_difference(a, b, bars_per_year=252, block=5, seed=0)
    mirrored = sharpe_difference(b, a, bars_per_year=252, block=5, seed=0)
    assert (found.value, found.low, found.p_value) == pytest.approx((-mirrored.value, -mirrored.high, mirrored.p_value))
    louder = sharpe_difference(3 * a, 0.5 * b, bars_per_year=252, block=5, seed=0)
    assert (louder.value, louder.p_value) == pytest.approx((found.value, found.p_value))
    assert (found.p_value < 0.05) == (found.low > 0)
    shifted = [sharpe_difference(a + k * 0.0005, b, bars_per_year=252, block=5, seed=0).p_value for k in range(5)]
    assert shifted == sorted(shifted, reverse=True)


def test_equal_ratios_are_rejected_as_often_as_they_should_be():
    """400 pairs with the same Sharpe ratio: 5% +- 2.2% (two standard errors)."""
    rng = np.random.default_rng(6)
    found = [sharpe_difference(*pair(rng, 500), bars_per_year=252, resamples=299, seed=k).p_value for k in range(400)]
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.022)
    assert np.mean(np.array(found) <= 0.5) == pytest.approx(0.5, abs=0.05)


def test_a_pair_that_cannot_be_compared_is_refused():
    a, b = pair(np.random.default_rng(7), 100)
    for other, message in ((b[:50], "same bars"), (2 * a, "one Sharpe ratio"), (np.zeros(100), "constant"), (np.full(100, np.nan), "nan")):
        with pytest.raises(DataError, match=message):
            sharpe_difference(a, other, bars_per_year=252, seed=0)
    with pytest.raises(DataError, match="shorten it"):
        sharpe_difference(a, b, bars_per_year=252, block=60, seed=0)
