"""What an episode earned, each figure with its bootstrap interval.

All are computed by one compiled function, on the bars as they came and on every resample of them, so that a value and
its interval cannot disagree on a definition. The risk-free rate is 0.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int64, njit, types

from rlaif_ray.backtest.significance import (
    MIN_BARS,
    RNG,
    block_length,
    deviation,
    fill_indices,
    log_excess,
    percentile_interval,
    resampled_moments,
)
from rlaif_ray.core import Episode
from rlaif_ray.errors import DataError

_F1 = types.Array(float64, 1, "C", readonly=True)
TAIL = 0.05  # the worst share of the bars, behind cvar_95

OWN = (
    "annual_return", "total_return", "annual_volatility", "sharpe", "sortino", "calmar", "max_drawdown", "cvar_95", "hit_rate",
    "profit_factor", "turnover", "cost_drag",
)  # fmt: skip
EXCESS = ("excess_log_return", "excess_sharpe", "beta_neutral_excess")
METRICS = OWN + EXCESS


def summary(
    episode: Episode, benchmark: Episode | None = None, *, bars_per_year: float, resamples: int = 2000, seed: int
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Each metric as {"value", "low", "high"}: a value with its 95% stationary-bootstrap interval.

    annual_return, total_return
        Compound growth of net returns, a year and over all bars.
    annual_volatility
        Standard deviation of net returns, a year.
    sharpe, sortino
        Mean net return over its standard deviation, and over its root mean square below 0, a year.
        Sharpe (1994); Sortino and van der Meer (1991).
    max_drawdown, calmar
        Deepest fall from a peak of equity (a negative fraction), and annual return over its size. Young (1991).
    cvar_95
        Mean net return of the worst 5% of the bars (per bar, negative for a loss). Rockafellar and Uryasev (2000).
    hit_rate, profit_factor
        Share of the bars that gained; sum of gains over sum of losses.
    turnover, cost_drag
        Traded notional and costs as fractions of equity, a year.
    excess_log_return, excess_sharpe
        Mean log return per bar over the benchmark (the same interval as `significance.edge` with the same seed), and
        its annual ratio to its standard deviation. Only with a benchmark.
    beta_neutral_excess
        Net return a year beyond beta times the benchmark's: the intercept of the one on the other. Jensen (1968). Only
        with a benchmark; beta is found anew in every resample.

    A figure that does not exist (no variance, no losing bar, no bars) is NaN. Under 20 bars, or where it does not exist
    in more than 5% of the resamples, its interval is NaN.

    Raises `DataError` where the benchmark's bars are not the episode's.
    """
    returns = episode.returns
    rank = np.argsort(np.argsort(returns, kind="stable"), kind="stable")
    columns = np.stack([returns, np.log1p(returns), episode.turnover, episode.costs, rank])
    values, resampled = _own(columns, bars_per_year, resamples, seed)
    out = {name: _row(values[i], resampled[:, i]) for i, name in enumerate(OWN)}
    if benchmark is not None:
        if not np.array_equal(benchmark.times, episode.times):
            raise DataError(f"the benchmark {benchmark.policy} covers other bars than {episode.policy}; expected the same")
        out |= _over(log_excess(episode.returns, benchmark.returns), bars_per_year, resamples, seed)
        out |= _beyond_beta(episode.returns, benchmark.returns, bars_per_year, resamples, seed)
    return out


def _own(columns: np.ndarray, bars_per_year: float, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Values (K,) and resampled values (resamples, K) of the figures that need no benchmark."""
    bars = columns.shape[1]
    if not bars:
        return np.full(len(OWN), np.nan), np.full((resamples, len(OWN)), np.nan)
    values, ranked = np.empty(len(OWN)), np.sort(columns[0])
    _figures(columns, ranked, bars_per_year, values)
    if bars < MIN_BARS:
        return values, np.full((resamples, len(OWN)), np.nan)
    return values, _resampled(np.random.default_rng(seed), block_length(columns[1]), columns, ranked, bars_per_year, resamples)


def _over(excess: np.ndarray, bars_per_year: float, resamples: int, seed: int) -> dict[str, dict[str, float]]:
    if not len(excess):
        return {name: _row(np.nan, np.full(resamples, np.nan)) for name in EXCESS}
    mean = float(excess.mean())
    own, moments = np.array([[mean, deviation(excess, mean)]]), resampled_moments(excess, resamples=resamples, seed=seed)
    return {
        "excess_log_return": _row(mean, moments[:, 0]),
        "excess_sharpe": _row(float(_ratio(own)[0] * np.sqrt(bars_per_year)), _ratio(moments) * np.sqrt(bars_per_year)),
    }


def _beyond_beta(
    returns: np.ndarray, market: np.ndarray, bars_per_year: float, resamples: int, seed: int
) -> dict[str, dict[str, float]]:  # fmt: skip
    bars = len(returns)
    value, drawn = np.nan, np.full(resamples, np.nan)
    if bars:
        value = _intercept(np.arange(bars), returns, market)
    if bars >= MIN_BARS:
        block = block_length(np.log1p(returns) - np.log1p(market))
        drawn = _intercepts(np.random.default_rng(seed), block, returns, market, resamples)
    return {"beta_neutral_excess": _row(value * bars_per_year, drawn * bars_per_year)}


def _ratio(moments: np.ndarray) -> np.ndarray:
    """(N,) mean over deviation; NaN without deviation."""
    return np.divide(moments[:, 0], moments[:, 1], out=np.full(len(moments), np.nan), where=moments[:, 1] > 0)


def _row(value: float, resampled: np.ndarray) -> dict[str, float]:
    low, high = percentile_interval(resampled)
    return {"value": float(value) if np.isfinite(value) else np.nan, "low": low, "high": high}


@njit(float64(float64[::1], float64[::1]), cache=True)
def _worst_mean(ranks, ranked):  # pragma: no cover
    """Mean of the lowest `TAIL` of the bars drawn, by counting ranks: a sort of every resample would cost more than all else."""
    n = ranks.shape[0]
    drawn = np.zeros(n, np.int64)
    for k in range(n):
        drawn[int64(ranks[k])] += 1
    worst = max(1, int64(np.ceil(TAIL * n - 1e-9)))
    left, total, i = worst, 0.0, 0
    while left > 0:
        taken = min(drawn[i], left)
        total += taken * ranked[i]
        left -= taken
        i += 1
    return total / worst


@njit(float64(int64[::1], _F1, _F1), cache=True)
def _intercept(index, returns, market):  # pragma: no cover
    """Of least squares of returns on market over the bars of `index`; NaN where the market stands still."""
    r, m, rm, mm, n = 0.0, 0.0, 0.0, 0.0, index.shape[0]
    for k in index:
        r += returns[k]
        m += market[k]
        rm += returns[k] * market[k]
        mm += market[k] * market[k]
    spread = mm - m * m / n
    return (r - (rm - r * m / n) / spread * m) / n if spread > 1e-12 * mm else np.nan


@njit(float64[::1](RNG, float64, _F1, _F1, int64), cache=True)
def _intercepts(rng, block, returns, market, resamples):  # pragma: no cover
    index, out = np.empty(returns.shape[0], np.int64), np.empty(resamples)
    for i in range(resamples):
        fill_indices(rng, block, index)
        out[i] = _intercept(index, returns, market)
    return out


@njit(types.void(float64[:, ::1], float64[::1], float64, float64[::1]), cache=True)
def _figures(columns, ranked, bars_per_year, out):  # pragma: no cover
    """`OWN` in its order.

    `columns` (5,T): net returns, their logs, turnover, costs, and each bar's rank among the bars as they came;
    `ranked` (T,): the net returns of those ranks, rising.
    """
    returns, log_returns = columns[0], columns[1]
    n = returns.shape[0]
    gains, losses, below, hits = 0.0, 0.0, 0.0, 0
    level, peak, deepest = 0.0, 0.0, 0.0
    for k in range(n):
        r = returns[k]
        if r > 0.0:
            gains += r
            hits += 1
        else:
            losses -= r
            below += r * r
        level += log_returns[k]
        peak = max(peak, level)
        deepest = min(deepest, level - peak)

    mean = returns.mean()
    spread, downside = deviation(returns, mean), np.sqrt(below / n)
    annual_return, max_drawdown = np.expm1(level * bars_per_year / n), np.expm1(deepest)
    out[0] = annual_return
    out[1] = np.expm1(level)
    out[2] = spread * np.sqrt(bars_per_year)
    out[3] = mean / spread * np.sqrt(bars_per_year) if spread > 0.0 else np.nan
    out[4] = mean / downside * np.sqrt(bars_per_year) if downside > 0.0 else np.nan
    out[5] = annual_return / -max_drawdown if max_drawdown < 0.0 else np.nan
    out[6] = max_drawdown
    out[7] = _worst_mean(columns[4], ranked)
    out[8] = hits / n
    out[9] = gains / losses if losses > 0.0 else np.nan
    out[10] = columns[2].mean() * bars_per_year
    out[11] = columns[3].mean() * bars_per_year


@njit(float64[:, ::1](RNG, float64, float64[:, ::1], float64[::1], float64, int64), cache=True)
def _resampled(rng, block, columns, ranked, bars_per_year, resamples):  # pragma: no cover
    index, drawn = np.empty(columns.shape[1], np.int64), np.empty_like(columns)
    out = np.empty((resamples, 12))
    for i in range(resamples):
        fill_indices(rng, block, index)
        for c in range(columns.shape[0]):
            for k in range(index.shape[0]):
                drawn[c, k] = columns[c, index[k]]
        _figures(drawn, ranked, bars_per_year, out[i])
    return out
