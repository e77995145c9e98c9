"""How far a result may be chance: the stationary bootstrap, and what counts as an edge.

Politis and Romano (1994), "The stationary bootstrap": blocks of geometric length keep the dependence between bars.
Politis and White (2004), with the correction of Patton, Politis and White (2009), choose the mean block length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import float64, int64, njit, types

from rlaif_ray.core import RUIN
from rlaif_ray.errors import DataError

LEVEL = 0.95
MIN_BARS = 20  # fewer say nothing about their own dependence, and so nothing about an interval
DEFINED = 0.95  # share of the resamples in which a statistic must exist for its interval to be said

RNG = types.NumPyRandomGeneratorType("NumPyRandomGeneratorType")
_F2 = types.Array(float64, 2, "C", readonly=True)


@dataclass(frozen=True)
class Interval:
    """A value with its bootstrap interval; NaN where it cannot be said. `claim` only where an edge is claimed."""

    value: float
    low: float
    high: float
    claim: bool = False


def edge(returns: np.ndarray, benchmark_returns: np.ndarray, *, resamples: int = 2000, seed: int) -> Interval:
    """Mean log return per bar over the benchmark; an edge is claimed iff the 95% interval lies above 0.

    Parameters
    ----------
    returns, benchmark_returns : (T,) simple net returns of the same bars; the benchmark is equal weight of the same
        names at the same costs.

    The number of trials behind a claim is kept in the trial ledger, not here.
    """
    excess = log_excess(returns, benchmark_returns)
    if not len(excess):
        return Interval(np.nan, np.nan, np.nan)
    low, high = percentile_interval(resampled_moments(excess, resamples=resamples, seed=seed)[:, 0])
    return Interval(float(excess.mean()), low, high, claim=bool(low > 0))


def log_excess(returns: np.ndarray, benchmark_returns: np.ndarray) -> np.ndarray:
    """(T,) log return over the benchmark; `DataError` where the two do not match or are not finite."""
    r, b = (np.ascontiguousarray(x, np.float64) for x in (returns, benchmark_returns))
    if r.shape != b.shape or r.ndim != 1:
        raise DataError(f"returns {r.shape} against a benchmark of {b.shape}; expected the same bars")
    for name, x in (("returns", r), ("benchmark", b)):
        if not np.isfinite(x).all():
            raise DataError(f"{name} hold {x[~np.isfinite(x)][0]}; expected finite simple returns")
    return log_growth(r) - log_growth(b)


def log_growth(returns: np.ndarray) -> np.ndarray:
    """Log of 1 plus simple returns of any shape, of which one that loses all, or more, leaves `RUIN`."""
    return np.log1p(np.maximum(returns, RUIN - 1.0))


def block_length(series: np.ndarray) -> float:
    """Mean block length of the stationary bootstrap by Politis and White, between 1 and a third of the bars.

    A constant or very short series has no dependence to keep: 1.
    """
    series = np.array(series, np.float64)
    if len(series) < MIN_BARS or deviation(series, series.mean()) == 0:
        return 1.0
    return float(block_lengths(series[:, None])[0])


def block_lengths(columns: np.ndarray) -> np.ndarray:
    """(K,) mean block length for each column of (T,K), finite and not constant; T at least `MIN_BARS`.

    Politis and White (2004), section 3, with the constant of Patton, Politis and White (2009): the flat-top bandwidth is
    twice the lag after which autocorrelations stay below 2 sqrt(log10(T) / T) for a while. Equal to `arch`'s
    `optimal_block_length`, in a small part of its time: a search asks for thousands.
    """
    centred = np.ascontiguousarray((columns - columns.mean(axis=0)).T, np.float64)
    bars = centred.shape[1]
    return np.clip(_block_lengths(centred), 1.0, min(np.ceil(min(3 * np.sqrt(bars), bars / 3)), bars / 3))


def bootstrap_variance(columns: np.ndarray, block: float) -> np.ndarray:
    """(K,) variance of sqrt(T) times the mean under the stationary bootstrap of (T,K), without drawing a resample.

    Politis and Romano (1994), lemma 1; the kernel of Hansen (2005). The kernel is symmetric around the circle
    that the resamples run on, so the sum over lags is one over frequencies.
    """
    bars = len(columns)
    lag = np.arange(bars)
    stay = 1.0 - 1.0 / block
    kernel = (1 - lag / bars) * stay**lag + lag / bars * stay ** (bars - lag)
    power = np.abs(np.fft.rfft(columns - columns.mean(axis=0), axis=0)) ** 2
    weight = np.fft.rfft(kernel).real / bars**2
    weight[1 : (bars + 1) // 2] *= 2  # frequencies that stand for their mirror as well
    return weight @ power


def stationary_weights(n: int, block: float, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resamples, n) how often each bar stands in each resample, as float64, for the same draws as `stationary_indices`.

    The means of all resamples of (n,K) columns are then one matrix product: `weights @ columns / n`.
    """
    return _weights(rng, block, resamples, n)


def stationary_indices(n: int, block: float, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resamples, n) int64: indices into n bars, in wrapped runs whose length is geometric with mean `block`."""
    out, runs = np.empty((resamples, n), np.int64), np.empty((n, 2), np.int64)
    for row in out:
        count = draw_runs(rng, block, n, runs)
        _indices(runs[:count], row)
    return out


def resampled_sums(columns: np.ndarray, block: float, *, resamples: int, seed: int) -> np.ndarray:
    """(resamples, C) sums of (T,C) columns over each resample: a run costs one difference of running sums, however long it is."""
    return _sums(np.random.default_rng(seed), block, np.ascontiguousarray(columns, np.float64), resamples)


def resampled_moments(series: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """(resamples, 2) mean and standard deviation of each resample; NaN for a series too short to be resampled."""
    series = np.ascontiguousarray(series, np.float64)
    if len(series) < MIN_BARS:
        return np.full((resamples, 2), np.nan)
    centred = series - series.mean()
    sums = resampled_sums(np.stack([centred, centred**2], axis=1), block_length(series), resamples=resamples, seed=seed)
    spread = spread_of(sums[:, 0], sums[:, 1], len(series), np.abs(series).max())
    return np.stack([series.mean() + sums[:, 0] / len(series), spread], axis=1)


def spread_of(sums: np.ndarray, squares: np.ndarray, n: int, largest: float) -> np.ndarray:
    """Standard deviation (n - 1) of n centred numbers by their sum and sum of squares; 0 where what is left is rounding, NaN of one.

    `largest` is the largest of the numbers before they were centred.
    """
    if n < 2:
        return np.full(len(sums), np.nan)
    variance = (squares - sums**2 / n) / (n - 1)
    # Numbers that are all alike leave 1e-16 of their squares, or, centred, 1e-16 of themselves.
    there = (variance > 1e-12 * squares / n) & (variance > (1e-12 * largest) ** 2)
    return np.sqrt(np.where(there, variance, 0.0))


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """The central 95% of resampled statistics; NaN where more than 5% of them do not exist."""
    defined = values[np.isfinite(values)]
    if len(defined) < DEFINED * len(values):
        return np.nan, np.nan
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@njit(int64(RNG, float64, int64, int64[:, ::1]), cache=True)
def draw_runs(rng, block, n, runs):  # pragma: no cover
    """One resample of n bars as runs, in place: the bar where each starts and how many it holds, (K, 2). Returns K.

    A number between 0 and 1 says both, as its 53 bits are far more than a start takes: times n, the whole part is the
    start, and what is left, uniform again, the length.
    """
    stay = np.log1p(-1.0 / block) if block > 1.0 else -np.inf
    left, k = n, 0
    while left > 0:
        drawn = rng.random() * n
        runs[k, 0] = min(int64(drawn), n - 1)
        length = 1 if block <= 1.0 else 1 + int64(np.log(max(1.0 - (drawn - runs[k, 0]), 1e-300)) / stay)
        runs[k, 1] = min(length, left)
        left -= runs[k, 1]
        k += 1
    return k


@njit(types.void(int64[:, ::1], int64[::1]), cache=True)
def _indices(runs, out):  # pragma: no cover
    """The bars of `runs` one by one, in place; a run that passes the last bar goes on at the first."""
    n, k = out.shape[0], 0
    for r in range(runs.shape[0]):
        at = runs[r, 0]
        for _ in range(runs[r, 1]):
            out[k] = at
            k += 1
            at = at + 1 if at + 1 < n else 0


@njit(float64[:, ::1](_F2), cache=True)
def running_sums(columns):  # pragma: no cover
    """(2T+1, C): sums of columns (T,C) before each bar of two rounds, so that any run's sum is one difference."""
    bars, width = columns.shape
    out = np.zeros((2 * bars + 1, width))
    for t in range(2 * bars):
        for c in range(width):
            out[t + 1, c] = out[t, c] + columns[t % bars, c]
    return out


@njit(types.void(int64[:, ::1], float64[:, ::1], float64[::1]), cache=True)
def sum_runs(runs, running, out):  # pragma: no cover
    """Sums of each column over the bars of `runs`, in place (C,)."""
    out[:] = 0.0
    for r in range(runs.shape[0]):
        first, last = runs[r, 0], runs[r, 0] + runs[r, 1]
        for c in range(out.shape[0]):
            out[c] += running[last, c] - running[first, c]


@njit(float64(float64[::1], float64), cache=True)
def deviation(series, mean):  # pragma: no cover
    """Standard deviation (n - 1) about a known mean; NaN for one bar, 0 where what is left is rounding."""
    squares, largest = 0.0, 0.0
    for x in series:
        squares += (x - mean) ** 2
        largest = max(largest, abs(x))
    if series.shape[0] < 2:
        return np.nan
    found = np.sqrt(squares / (series.shape[0] - 1))
    return found if found > 1e-12 * largest else 0.0


@njit(float64[:, ::1](RNG, float64, _F2, int64), cache=True)
def _sums(rng, block, columns, resamples):  # pragma: no cover
    runs, running = np.empty((columns.shape[0], 2), np.int64), running_sums(columns)
    out = np.empty((resamples, columns.shape[1]))
    for i in range(resamples):
        count = draw_runs(rng, block, columns.shape[0], runs)
        sum_runs(runs[:count], running, out[i])
    return out


@njit(float64[:, ::1](RNG, float64, int64, int64), cache=True)
def _weights(rng, block, resamples, n):  # pragma: no cover
    runs, index, out = np.empty((n, 2), np.int64), np.empty(n, np.int64), np.zeros((resamples, n))
    for i in range(resamples):
        count = draw_runs(rng, block, n, runs)
        _indices(runs[:count], index)
        for k in range(n):
            out[i, index[k]] += 1.0
    return out


@njit(float64[::1](float64[:, ::1]), cache=True)
def _block_lengths(centred):  # pragma: no cover
    """For each row of (K,T); lags are worked out only as far as the rule looks."""
    n = centred.shape[1]
    quiet = max(5, int64(np.log10(n)))
    last = int64(np.ceil(np.sqrt(n))) + quiet
    bound = 2.0 * np.sqrt(np.log10(n) / n)
    covariance, out = np.empty(last + 1), np.empty(centred.shape[0])
    for k in range(centred.shape[0]):
        x = centred[k]
        known, run, bandwidth = 0, 0, last
        head = tail = (x * x).sum()  # sums of squares without the last, and without the first, lag + 1 bars
        for lag in range(last + 1):
            covariance[lag] = np.dot(x[lag:], x[: n - lag]) / n
            known = lag
            head -= x[n - 1 - lag] ** 2
            tail -= x[lag] ** 2
            run = run + 1 if abs(covariance[lag]) * n < bound * np.sqrt(max(head * tail, 0.0)) else 0
            if run == quiet and lag < last:  # the rule, as published in code, does not look at the last lag
                bandwidth = min(2 * max(lag - quiet + 1, 1), last)
                break
        for lag in range(known + 1, bandwidth + 1):
            covariance[lag] = np.dot(x[lag:], x[: n - lag]) / n
        slope, level = 0.0, covariance[0]
        for lag in range(1, bandwidth + 1):
            weight = 2.0 * min(1.0, 2.0 * (1.0 - lag / bandwidth))
            slope += weight * lag * covariance[lag]
            level += weight * covariance[lag]
        out[k] = (slope**2 / level**2 * n) ** (1.0 / 3.0) if level != 0.0 else np.inf
    return out
