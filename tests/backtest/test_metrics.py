from __future__ import annotations

import numpy as np
import pytest

from rlaif_ray.backtest.metrics import METRICS, OWN, summary
from rlaif_ray.backtest.significance import block_length, edge, percentile_interval, stationary_indices
from rlaif_ray.core import Episode
from rlaif_ray.errors import DataError


def episode(returns, costs=0.0, turnover=0.0, policy: str = "p") -> Episode:
    """Net `returns` on consecutive days."""
    returns = np.asarray(returns, np.float64)
    t = len(returns)
    times = np.datetime64("2020-01-01", "us") + np.timedelta64(1, "D") * np.arange(t)
    costs, turnover = np.broadcast_to(costs, t).astype(np.float64), np.broadcast_to(turnover, t).astype(np.float64)
    return Episode(times, ("A",), np.ones((t, 1)), returns + costs, costs, turnover, policy)


def values(e: Episode, benchmark: Episode | None = None, bars_per_year: float = 4.0) -> dict[str, float]:
    return {k: v["value"] for k, v in summary(e, benchmark, bars_per_year=bars_per_year, resamples=100, seed=0).items()}


def test_four_quarters_by_hand():
    got = values(episode([0.10, -0.20, 0.10, 0.05], costs=0.001, turnover=0.3))
    growth = 1.1 * 0.8 * 1.1 * 1.05
    mean, spread = 0.0125, np.std([0.10, -0.20, 0.10, 0.05], ddof=1)
    expected = {
        "total_return": growth - 1, "annual_return": growth - 1, "annual_volatility": 2 * spread, "sharpe": 2 * mean / spread,
        "sortino": 2 * mean / 0.1, "max_drawdown": -0.2, "calmar": (growth - 1) / 0.2, "cvar_95": -0.2, "hit_rate": 0.75,
        "profit_factor": 0.25 / 0.20, "turnover": 1.2, "cost_drag": 0.004,
    }  # fmt: skip
    assert got == pytest.approx(expected)


def test_a_drawdown_counts_from_the_start_and_over_many_bars():
    assert values(episode([-0.1, -0.1, 0.5, -0.3]))["max_drawdown"] == pytest.approx(-0.3)
    assert values(episode([-0.1, -0.1, 0.05]))["max_drawdown"] == pytest.approx(-0.19)


def test_cvar_is_the_mean_of_the_worst_twentieth():
    returns = np.arange(-20, 80) / 1000
    assert values(episode(np.random.default_rng(0).permutation(returns)))["cvar_95"] == pytest.approx(returns[:5].mean())
    assert values(episode(np.random.default_rng(0).permutation(returns[:21])))["cvar_95"] == pytest.approx(returns[:2].mean())


def test_who_loses_more_than_all_is_left_with_a_thousandth_of_it():
    ruined, even = episode([0.1, -1.5] + 30 * [0.0]), episode([0.0] * 32, policy="equal_weight")
    got = values(ruined, even)
    assert ruined.equity[-1] == pytest.approx(0.0011)
    assert got["total_return"] == pytest.approx(0.0011 - 1)
    assert got["max_drawdown"] == pytest.approx(0.001 - 1)
    assert got["excess_log_return"] == pytest.approx(np.log(0.0011) / 32)
    assert edge(ruined.returns, even.returns, seed=0).value == pytest.approx(np.log(0.0011) / 32)


def test_excess_over_the_benchmark():
    got = values(episode([0.10, 0.20, 0.0]), episode([0.05, 0.05, 0.05], policy="equal_weight"))
    excess = np.log([1.10, 1.20, 1.0]) - np.log(1.05)
    assert got["excess_log_return"] == pytest.approx(excess.mean())
    assert got["excess_sharpe"] == pytest.approx(2 * excess.mean() / excess.std(ddof=1))
    with pytest.raises(DataError, match="other bars"):
        values(episode([0.1, 0.2]), episode([0.1]))


def test_what_is_left_beyond_beta_by_hand():
    """Twice the market and a hundredth a bar: four hundredths a year of four bars, whatever the market does."""
    market = np.array([0.05, -0.02, 0.01, 0.0])
    got = values(episode(2 * market + 0.01), episode(market, policy="equal_weight"))
    assert got["beta_neutral_excess"] == pytest.approx(0.04)
    assert np.isnan(values(episode(2 * market), episode(np.full(4, 0.01), policy="equal_weight"))["beta_neutral_excess"])


def test_intervals():
    rng = np.random.default_rng(1)
    ours, benchmark = episode(rng.normal(1e-3, 0.01, 1500), 1e-5, 0.02), episode(rng.normal(0, 0.01, 1500), policy="equal_weight")
    got = summary(ours, benchmark, bars_per_year=252, seed=3)
    assert tuple(got) == METRICS
    for name, row in got.items():
        assert row["low"] <= row["value"] + 1e-12, name
        assert row["value"] <= row["high"] + 1e-12, name
    # a Sharpe ratio of S on T bars has a standard error of about sqrt(252 / T) (Lo, 2002)
    assert got["sharpe"]["high"] - got["sharpe"]["low"] == pytest.approx(2 * 1.96 * np.sqrt(252 / 1500), rel=0.1)
    found = edge(ours.returns, benchmark.returns, seed=3)
    assert (found.value, found.low, found.high) == tuple(got["excess_log_return"][k] for k in ("value", "low", "high"))
    assert got == summary(ours, benchmark, bars_per_year=252, seed=3)
    assert got["sharpe"] != summary(ours, benchmark, bars_per_year=252, seed=4)["sharpe"]


@pytest.mark.parametrize("bars", [20, 23, 400])
def test_intervals_are_those_of_the_same_resamples_bar_by_bar(bars):
    """Runs of running sums against the definitions, on the bars that each resample holds."""
    rng = np.random.default_rng(bars)
    e = episode(rng.standard_t(4, bars) * 0.01, costs=1e-4 * rng.random(bars), turnover=rng.random(bars))
    index = stationary_indices(bars, block_length(np.log1p(e.returns)), 300, np.random.default_rng(7))
    worst = int(np.ceil(0.05 * bars - 1e-9))
    expected = []
    for drawn in index:
        r, equity = e.returns[drawn], np.cumprod(1 + e.returns[drawn])
        fall = (equity / np.maximum.accumulate(np.maximum(equity, 1.0)) - 1).min()
        yearly, year, lost = equity[-1] ** (252 / bars) - 1, np.sqrt(252), -r[r < 0].sum()
        expected.append([
            yearly, equity[-1] - 1, r.std(ddof=1) * year, r.mean() / r.std(ddof=1) * year,
            r.mean() / np.sqrt((np.minimum(r, 0) ** 2).mean()) * year, yearly / -fall, fall, np.sort(r)[:worst].mean(), (r > 0).mean(),
            r[r > 0].sum() / lost, e.turnover[drawn].mean() * 252, e.costs[drawn].mean() * 252,
        ])  # fmt: skip
    got = summary(e, bars_per_year=252, resamples=300, seed=7)
    for name, reference in zip(OWN, np.array(expected).T, strict=True):
        assert (got[name]["low"], got[name]["high"]) == pytest.approx(percentile_interval(reference), rel=1e-9), name


@pytest.mark.parametrize("bars", [0, 1, 2, 19, 40])
@pytest.mark.parametrize("level", [0.0, 0.01, -0.01])
def test_what_does_not_exist_is_nan_and_warns_of_nothing(bars, level):
    e = episode(np.full(bars, level))
    got = summary(e, e, bars_per_year=252, resamples=200, seed=0)
    for name in ("sharpe", "excess_sharpe"):
        assert np.isnan(list(got[name].values())).all()
    if bars == 0:
        assert np.isnan([v for row in got.values() for v in row.values()]).all()
    elif bars < 20:
        assert np.isnan([row[k] for row in got.values() for k in ("low", "high")]).all()
        assert got["hit_rate"]["value"] == (level > 0)
    else:
        assert got["total_return"]["low"] == pytest.approx((1 + level) ** bars - 1)
        assert np.isnan(got["profit_factor"]["value"]) == (level >= 0)
        assert np.isnan(got["calmar"]["value"]) == (level >= 0)
        assert got["excess_log_return"] == {"value": 0.0, "low": 0.0, "high": 0.0}
