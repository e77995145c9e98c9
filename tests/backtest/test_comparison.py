from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from arch.bootstrap import MCS
from scipy.stats import t as student

from rlaif_ray.backtest.comparison import clark_west, confidence_set, diebold_mariano, mean_by_date, standings
from rlaif_ray.errors import DataError


def overlapping(rng: np.random.Generator, n: int, horizon: int) -> np.ndarray:
    return np.convolve(rng.normal(size=n + horizon - 1), np.ones(horizon), "valid")


@pytest.mark.parametrize("horizon", [1, 5])
def test_diebold_mariano_is_a_regression_on_a_constant(horizon):
    rng = np.random.default_rng(0)
    loss, other = overlapping(rng, 250, horizon) ** 2, overlapping(rng, 250, horizon) ** 2 + 0.3
    found = diebold_mariano(loss, other, horizon=horizon)
    uniform = {"maxlags": horizon - 1, "kernel": "uniform"}
    fit = sm.OLS(loss - other, np.ones(250)).fit(cov_type="HAC", cov_kwds=uniform)
    few = np.sqrt((251 - 2 * horizon + horizon * (horizon - 1) / 250) / 250)
    assert found.mean == pytest.approx(fit.params[0])
    assert found.statistic == pytest.approx(fit.tvalues[0] * few)
    assert found.p_value == pytest.approx(2 * student.sf(abs(fit.tvalues[0] * few), 249))
    assert found.times == 250


def test_diebold_mariano_of_one_step_is_the_t_test():
    """Harvey, Leybourne and Newbold's correction at horizon 1 turns variance over n into variance over n - 1."""
    d = np.random.default_rng(1).normal(0.1, 1.0, 80)
    found = diebold_mariano(d, np.zeros(80))
    assert found.statistic == pytest.approx(d.mean() / (d.std(ddof=1) / np.sqrt(80)))
    assert (found.low > 0) == (found.p_value < 0.05)


def test_a_negative_sum_of_autocovariances_falls_back_to_newey_west():
    d = np.tile([1.0, -1.0], 50) + np.random.default_rng(2).normal(0.3, 0.01, 100)
    found = diebold_mariano(d, np.zeros(100), horizon=2)
    fit = sm.OLS(d, np.ones(100)).fit(cov_type="HAC", cov_kwds={"maxlags": 1})
    assert found.statistic == pytest.approx(fit.tvalues[0] * np.sqrt((101 - 4 + 2 / 100) / 100))


def test_laws_of_diebold_mariano():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=200) ** 2, rng.normal(size=200) ** 2
    there, back = diebold_mariano(a, b, horizon=3), diebold_mariano(b, a, horizon=3)
    assert (there.statistic, there.low) == pytest.approx((-back.statistic, -back.high))
    assert there.p_value == pytest.approx(back.p_value)
    worse = [diebold_mariano(a + abs(a.mean() - b.mean()) + k, b, horizon=3).p_value for k in (0, 0.1, 0.2, 0.5)]
    assert worse == sorted(worse, reverse=True)


@pytest.mark.parametrize("horizon", [1, 5, 21])
def test_equal_forecasts_are_told_apart_as_often_as_they_should_be(horizon):
    """1,000 series; 5% within 2 standard errors for one step, up to 8% where 500 bars hold few whole horizons."""
    rng = np.random.default_rng(4)
    found = [diebold_mariano(overlapping(rng, 500, horizon), np.zeros(500), horizon=horizon).p_value for _ in range(1000)]
    assert 0.036 <= np.mean(np.array(found) <= 0.05) <= (0.064 if horizon < 21 else 0.08)


def test_clark_west_by_hand():
    """Where the larger model adds pure noise e to the nested forecast 0: y^2 - ((y - e)^2 - e^2) = 2 y e."""
    rng = np.random.default_rng(5)
    y, e = rng.normal(size=300), rng.normal(size=300)
    found = clark_west(y, np.zeros(300), e)
    z = 2 * y * e
    statistic = z.mean() / (z.std(ddof=1) / np.sqrt(300))
    assert found.statistic == pytest.approx(statistic)
    assert found.p_value == pytest.approx(student.sf(statistic, 299))


def test_clark_west_sees_skill_that_plain_losses_hide():
    """The larger model knows a little and pays for estimating it: its error is larger, its skill is real."""
    rng = np.random.default_rng(6)
    signal, noise = rng.normal(0, 0.15, 2000), rng.normal(0, 0.3, 2000)
    y = signal + rng.normal(size=2000)
    assert diebold_mariano((y - signal - noise) ** 2, y**2).mean > 0
    assert clark_west(y, np.zeros(2000), signal + noise).p_value < 0.01
    size = [clark_west(rng.normal(size=300), np.zeros(300), rng.normal(0, 0.3, 300)).p_value for _ in range(1000)]
    assert np.mean(np.array(size) <= 0.05) == pytest.approx(0.05, abs=0.015)


def test_mean_by_date_is_the_clustered_regression():
    rng = np.random.default_rng(7)
    dates = np.sort(rng.integers(0, 120, 2000)).astype("datetime64[D]")
    x = rng.normal(size=2000) + rng.normal(0.05, 0.5, 121)[dates.astype(int)]
    found = mean_by_date(x, dates)
    fit = sm.OLS(x, np.ones(2000)).fit(cov_type="cluster", cov_kwds={"groups": dates.astype(int), "use_correction": False})
    groups = len(np.unique(dates))
    assert found.mean == pytest.approx(fit.params[0])
    assert found.statistic == pytest.approx(fit.tvalues[0] * np.sqrt((groups - 1) / groups))
    assert found.times == groups
    assert mean_by_date(x[::-1], dates[::-1]).p_value == pytest.approx(found.p_value)


def test_one_row_a_date_is_the_mean_and_copies_of_it_add_nothing():
    x = overlapping(np.random.default_rng(8), 300, 5)
    once = mean_by_date(x, np.arange(300), horizon=5)
    thrice = mean_by_date(np.tile(x, 3), np.tile(np.arange(300), 3), horizon=5)
    assert (thrice.mean, thrice.low, thrice.p_value) == pytest.approx((once.mean, once.low, once.p_value))
    plain = diebold_mariano(x, np.zeros(300), horizon=5)
    assert (once.mean, once.p_value) == pytest.approx((plain.mean, plain.p_value))


def test_mean_by_date_covers_the_truth_where_dates_and_horizons_share_shocks():
    """300 panels of 250 dates x 10 names, 5-bar outcomes with a common shock: 95% +- 3%; rows taken as independent cover half of that."""
    rng, covered, naive = np.random.default_rng(9), 0, 0
    for _ in range(300):
        x = overlapping(rng, 250, 5)[:, None] + rng.normal(size=(250, 10))
        found = mean_by_date(x.ravel(), np.repeat(np.arange(250), 10), horizon=5)
        covered += found.low <= 0 <= found.high
        naive += abs(x.mean()) < 1.96 * x.std() / np.sqrt(x.size)
    assert covered / 300 == pytest.approx(0.95, abs=0.03)
    assert naive / 300 < 0.5


def test_the_confidence_set_is_archs():
    rng = np.random.default_rng(10)
    losses = rng.normal(size=(400, 5)) ** 2 + np.array([0.0, 0.02, 0.5, 0.8, 0.0])
    found = confidence_set(losses, block=4, resamples=500, seed=3)
    mcs = MCS(losses, 0.05, reps=500, block_size=4, seed=np.random.default_rng(3))
    mcs.compute()
    assert found.included == tuple(mcs.included)
    assert found.p_values == pytest.approx(mcs.pvalues["Pvalue"].sort_index().to_numpy())
    assert {2, 3}.isdisjoint(found.included)
    assert found.p_values.max() == 1.0
    assert confidence_set(losses, resamples=500, seed=3).included == found.included
    two = confidence_set(losses[:, :2], resamples=200, seed=3)
    assert two.included == (0, 1)


def test_standings_count_what_all_forecast_and_a_date_once():
    """The better one is said to be, by what the tests above say of the means by date; what one of them lacks counts for none."""
    rng = np.random.default_rng(12)
    first = rng.normal(size=(300, 8)) ** 2 + 1
    better, worse = first - 0.1 + 0.05 * rng.normal(size=(300, 8)), first + 1 + 0.05 * rng.normal(size=(300, 8))
    better[5], worse[:, 3], first[7, 2] = np.nan, np.nan, np.nan
    found = standings({"first": first, "better": better, "worse": worse}, horizon=2, seed=0)
    assert found["first"].gap is None and [s.may_be_best for s in found.values()] == [False, True, False]
    kept = np.delete(np.arange(8), 3)
    a, b = (np.array([x[t, kept][np.isfinite(first[t, kept])].mean() for t in range(300) if t != 5]) for x in (first, better))
    expected = diebold_mariano(b / a.mean(), a / a.mean(), horizon=2)
    assert found["better"].gap == expected and expected.high < 0 and expected.mean == pytest.approx(-0.1 / a.mean(), abs=0.01)
    with pytest.raises(DataError, match="at least 20"):
        standings({"a": first[:10], "b": worse[:10]}, horizon=1, seed=0)


def test_losses_that_cannot_be_compared_are_refused():
    good = np.random.default_rng(11).normal(size=100) ** 2
    holed = good.copy()
    holed[3] = np.nan
    bad = [(good, good, "constant"), (good, holed, "nan"), (good, good[:50], "same bars"), (good[:9], good[:9] ** 2, "at least 20")]
    for a, b, message in bad:
        with pytest.raises(DataError, match=message):
            diebold_mariano(a, b)
        with pytest.raises(DataError):
            clark_west(a, b, b)
    for horizon in (0, 51):
        with pytest.raises(DataError, match="horizon from 1 to half"):
            diebold_mariano(good, np.zeros(100), horizon=horizon)
    with pytest.raises(DataError, match="has 10 bars; expected at least 20"):
        mean_by_date(good, np.repeat(np.arange(10), 10))
    with pytest.raises(DataError, match="same bars"):
        mean_by_date(good, np.arange(99))
    twins = np.stack([good, good], axis=1)
    for losses, message in ((twins[:, :1], "at least two"), (twins, "same losses"), (np.ones((100, 2)), "constant")):
        with pytest.raises(DataError, match=message):
            confidence_set(losses, seed=0)
    with pytest.raises(DataError, match="shorten it"):
        confidence_set(np.stack([good, good**2], axis=1), block=60, seed=0)
