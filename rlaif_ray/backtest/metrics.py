"""What an episode earned, each figure with its bootstrap interval.

All are computed by one function, on the bars as they came and on every resample of them, so that a value and its interval
cannot disagree on a definition. What adds up over bars is taken a run of them at a time, from running sums. The risk-free
rate is 0.
"""

from __future__ import annotations

import numpy as np
from numba import float64, int32, int64, njit, types

from rlaif_ray.backtest.significance import (
    MIN_BARS,
    RNG,
    block_length,
    deviation,
    draw_runs,
    log_excess,
    log_growth,
    percentile_interval,
    resampled_moments,
    resampled_sums,
    running_sums,
    spread_of,
    sum_runs,
)
from rlaif_ray.core import Episode
from rlaif_ray.errors import DataError

_F1, _F2, _I1 = (types.Array(of, n, "C", readonly=True) for of, n in ((float64, 1), (float64, 2), (int32, 1)))
AS_THEY_CAME = 0.0  # in place of a block length: one run of all bars
TAIL = 0.05  # the worst share of the bars, behind cvar_95
KEPT = 2  # times that share: among so many of the lowest bars a resample nearly always finds its own worst

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
    values, resampled = _own(episode, bars_per_year, resamples, seed)
    out = {name: _row(values[i], resampled[:, i]) for i, name in enumerate(OWN)}
    if benchmark is not None:
        if not np.array_equal(benchmark.times, episode.times):
            raise DataError(f"the benchmark {benchmark.policy} covers other bars than {episode.policy}; expected the same")
        out |= _over(log_excess(episode.returns, benchmark.returns), bars_per_year, resamples, seed)
        out |= _beyond_beta(episode.returns, benchmark.returns, bars_per_year, resamples, seed)
    return out


def _own(episode: Episode, bars_per_year: float, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Values (K,) and resampled values (resamples, K) of the figures that need no benchmark."""
    returns, bars = episode.returns, len(episode.times)
    nothing = np.full((resamples, len(OWN)), np.nan)
    if not bars:
        return np.full(len(OWN), np.nan), nothing
    mean, gains = returns.mean(), np.maximum(returns, 0.0)
    columns = np.stack([
        (returns - mean) ** 2, log_growth(returns), gains, gains - returns, np.minimum(returns, 0.0) ** 2, returns > 0, episode.turnover,
        episode.costs,
    ], axis=1)  # fmt: skip
    rank, ranked = np.argsort(np.argsort(returns, kind="stable"), kind="stable"), np.sort(returns)
    worst = max(1, int(np.ceil(TAIL * bars - 1e-9)))
    every, lowest = _lowest(rank, bars), _lowest(rank, min(KEPT * worst, bars))

    def figures(block: float, times: int) -> np.ndarray:
        found = _resampled(np.random.default_rng(seed), block, columns, *lowest, *every, ranked, worst, times)
        return _figures(found, bars, float(mean), float(np.abs(returns).max()), bars_per_year)

    value = figures(AS_THEY_CAME, 1)[0]
    return value, nothing if bars < MIN_BARS else figures(block_length(columns[:, 1]), resamples)


def _lowest(rank: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the `count` lowest bars, in two rounds of all T: how many stand before each bar (2T+1,), and the rank of each in turn."""
    twice = np.concatenate([rank, rank])
    return np.concatenate([[0], np.cumsum(twice < count)]).astype(np.int32), twice[twice < count].astype(np.int32)


def _figures(found: np.ndarray, bars: int, mean: float, largest: float, bars_per_year: float) -> np.ndarray:
    """(N,K) `OWN` in its order, of (N, 10) what `_resampled` found; NaN where a figure does not exist."""
    squares, logs, gains, losses, below, hits, turnover, costs, deepest, worst = found.T
    total = gains - losses
    spread = spread_of(total - bars * mean, squares, bars, largest)
    yearly, fall = np.expm1(logs * bars_per_year / bars), np.expm1(deepest)
    year = np.sqrt(bars_per_year)
    return np.stack([
        yearly, np.expm1(logs), spread * year, _over_positive(total / bars, spread) * year,
        _over_positive(total / bars, np.sqrt(below / bars)) * year, _over_positive(yearly, -fall), fall, worst, hits / bars,
        _over_positive(gains, losses), turnover / bars * bars_per_year, costs / bars * bars_per_year,
    ], axis=1)  # fmt: skip


def _over_positive(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b; NaN where b is not above 0."""
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)


def _over(excess: np.ndarray, bars_per_year: float, resamples: int, seed: int) -> dict[str, dict[str, float]]:
    if not len(excess):
        return {name: _row(np.nan, np.full(resamples, np.nan)) for name in EXCESS}
    mean = float(excess.mean())
    own, year = np.array([[mean], [deviation(excess, mean)]]), np.sqrt(bars_per_year)
    moments = resampled_moments(excess, resamples=resamples, seed=seed)
    return {
        "excess_log_return": _row(mean, moments[:, 0]),
        "excess_sharpe": _row(float(_over_positive(*own)[0]) * year, _over_positive(*moments.T) * year),
    }


def _beyond_beta(
    returns: np.ndarray, market: np.ndarray, bars_per_year: float, resamples: int, seed: int
) -> dict[str, dict[str, float]]:  # fmt: skip
    bars = len(returns)
    value, drawn = np.full(1, np.nan), np.full(resamples, np.nan)
    columns = np.stack([returns, market, returns * market, market**2], axis=1)
    if bars:
        value = _intercept(columns.sum(axis=0)[None], bars)
    if bars >= MIN_BARS:
        block = block_length(log_growth(returns) - log_growth(market))
        drawn = _intercept(resampled_sums(columns, block, resamples=resamples, seed=seed), bars)
    return {"beta_neutral_excess": _row(float(value[0]) * bars_per_year, drawn * bars_per_year)}


def _intercept(sums: np.ndarray, bars: int) -> np.ndarray:
    """(N,) of least squares of returns on market, by (N,4) sums of both, their product and the market's square."""
    r, m, rm, mm = sums.T
    spread = mm - m * m / bars
    beta = np.divide(rm - r * m / bars, spread, out=np.full(len(sums), np.nan), where=spread > 1e-12 * mm)
    return (r - beta * m) / bars


def _row(value: float, resampled: np.ndarray) -> dict[str, float]:
    low, high = percentile_interval(resampled)
    return {"value": float(value) if np.isfinite(value) else np.nan, "low": low, "high": high}


@njit(float64(int64[:, ::1], float64[::1]), cache=True, fastmath={"nnan", "nsz"})
def _deepest(runs, level):  # pragma: no cover
    """How far the sum of the runs' bars fell from where it stood at its highest; `level` is a running sum of two rounds.

    Each run is looked through by itself, so that the processor need not wait for the one before.
    """
    now, peak, deepest = 0.0, 0.0, 0.0
    for r in range(runs.shape[0]):
        first, last = runs[r, 0], runs[r, 0] + runs[r, 1]
        highest = lowest = level[first]
        fall = 0.0
        for k in range(first + 1, last + 1):
            highest = max(highest, level[k])
            lowest = min(lowest, level[k])
            fall = min(fall, level[k] - highest)
        base = now - level[first]
        deepest = min(deepest, fall, base + lowest - peak)
        peak, now = max(peak, base + highest), base + level[last]
    return deepest


@njit(float64(int64[:, ::1], _I1, _I1, int64[::1], _F1, int64), cache=True)
def _worst_mean(runs, before, ranks, drawn, ranked, worst):  # pragma: no cover
    """Mean of the `worst` lowest bars drawn, by counting ranks; NaN where so many are not among the bars that `ranks` knows."""
    drawn[:] = 0
    for r in range(runs.shape[0]):
        for j in range(before[runs[r, 0]], before[runs[r, 0] + runs[r, 1]]):
            drawn[ranks[j]] += 1
    left, total = worst, 0.0
    for i in range(drawn.shape[0]):
        taken = min(drawn[i], left)
        total += taken * ranked[i]
        left -= taken
        if left == 0:
            return total / worst
    return np.nan


@njit(float64[:, ::1](RNG, float64, _F2, _I1, _I1, _I1, _I1, _F1, int64, int64), cache=True)
def _resampled(rng, block, columns, before, ranks, all_before, all_ranks, ranked, worst, resamples):  # pragma: no cover
    """(resamples, C+2): of each resample the sums of `columns` (T,C), the deepest fall of the running sum of the second, and
    the mean of the `worst` lowest of `ranked`. A block of 0 takes the bars as they came."""
    bars, width = columns.shape
    running, runs = running_sums(columns), np.empty((bars, 2), np.int64)
    level = running[:, 1].copy()
    few, all_drawn = np.empty(ranks.shape[0] // 2, np.int64), np.empty(bars, np.int64)
    out = np.empty((resamples, width + 2))
    for i in range(resamples):
        count = 1
        if block > 0.0:
            count = draw_runs(rng, block, bars, runs)
        else:
            runs[0, 0], runs[0, 1] = 0, bars
        drawn = runs[:count]
        sum_runs(drawn, running, out[i, :width])
        out[i, width] = _deepest(drawn, level)
        mean = _worst_mean(drawn, before, ranks, few, ranked, worst)
        out[i, width + 1] = mean if mean == mean else _worst_mean(drawn, all_before, all_ranks, all_drawn, ranked, worst)
    return out
