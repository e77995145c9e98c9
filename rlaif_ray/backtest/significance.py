"""How far a result may be chance: the stationary bootstrap, and what counts as an edge.

Politis and Romano (1994), "The stationary bootstrap": blocks of geometric length keep the dependence between bars.
Politis and White (2004), with the correction of Patton, Politis and White (2009), choose the mean block length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from arch.bootstrap import optimal_block_length
from numba import float64, int64, njit, types

from rlaif_ray.errors import DataError

LEVEL = 0.95
MIN_BARS = 20  # fewer say nothing about their own dependence, and so nothing about an interval
DEFINED = 0.95  # share of the resamples in which a statistic must exist for its interval to be said

RNG = types.NumPyRandomGeneratorType("NumPyRandomGeneratorType")


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
    """(T,) log return over the benchmark; `DataError` where the two do not match or are no returns."""
    r, b = (np.ascontiguousarray(x, np.float64) for x in (returns, benchmark_returns))
    if r.shape != b.shape or r.ndim != 1:
        raise DataError(f"returns {r.shape} against a benchmark of {b.shape}; expected the same bars")
    for name, x in (("returns", r), ("benchmark", b)):
        if not (np.isfinite(x) & (x > -1)).all():
            raise DataError(f"{name} hold {x[~(np.isfinite(x) & (x > -1))][0]}; expected finite simple returns above -1")
    return np.log1p(r) - np.log1p(b)


def block_length(series: np.ndarray) -> float:
    """Mean block length of the stationary bootstrap by Politis and White, between 1 and a third of the bars.

    A constant or very short series has no dependence to keep: 1.
    """
    series = np.array(series, np.float64)
    if len(series) < MIN_BARS or deviation(series, series.mean()) == 0:
        return 1.0
    return float(np.clip(optimal_block_length(series)["stationary"].iloc[0], 1.0, len(series) / 3))


def stationary_indices(n: int, block: float, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """(resamples, n) int64: indices into n bars, in wrapped runs whose length is geometric with mean `block`."""
    out = np.empty((resamples, n), np.int64)
    for row in out:
        fill_indices(rng, block, row)
    return out


def resampled_moments(series: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """(resamples, 2) mean and standard deviation of each resample; NaN for a series too short to be resampled."""
    series = np.ascontiguousarray(series, np.float64)
    if len(series) < MIN_BARS:
        return np.full((resamples, 2), np.nan)
    return _moments(np.random.default_rng(seed), block_length(series), series, resamples)


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """The central 95% of resampled statistics; NaN where more than 5% of them do not exist."""
    defined = values[np.isfinite(values)]
    if len(defined) < DEFINED * len(values):
        return np.nan, np.nan
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@njit(types.void(RNG, float64, int64[::1]), cache=True)
def fill_indices(rng, block, out):  # pragma: no cover
    """One resample of n = len(out) bars, in place. Draws a length for each run rather than a coin for each bar."""
    n = out.shape[0]
    stay = np.log1p(-1.0 / block) if block > 1.0 else -np.inf
    k = 0
    while k < n:
        at = min(int64(rng.random() * n), n - 1)
        run = 1 if block <= 1.0 else 1 + int64(np.log1p(-rng.random()) / stay)
        for _ in range(min(run, n - k)):
            out[k] = at
            k += 1
            at = at + 1 if at + 1 < n else 0


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


@njit(float64[:, ::1](RNG, float64, types.Array(float64, 1, "C", readonly=True), int64), cache=True)
def _moments(rng, block, series, resamples):  # pragma: no cover
    index, drawn = np.empty(series.shape[0], np.int64), np.empty(series.shape[0])
    out = np.empty((resamples, 2))
    for i in range(resamples):
        fill_indices(rng, block, index)
        for k in range(index.shape[0]):
            drawn[k] = series[index[k]]
        out[i, 0] = drawn.mean()
        out[i, 1] = deviation(drawn, out[i, 0])
    return out
