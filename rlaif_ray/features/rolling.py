"""Trailing-window kernels whose every value depends on its own window alone.

Each window is summed afresh, in order: no running sums, so no drift, and the same bits whatever comes before or after.
All take x (T,) float64, contiguous, and give (T,) float64, NaN until the window is full.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
_BLOCK = 256  # windows summed side by side: a processor adds eight at once, each still in its own order


@njit("float64[::1](float64[::1], int64)", **_OPTIONS)
def mean(x: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` values; one NaN among them makes it NaN."""
    out = np.full(x.size, np.nan)
    for start in range(window - 1, x.size, _BLOCK):
        rows = min(_BLOCK, x.size - start)
        total = np.zeros(rows)
        for k in range(start - window + 1, start + 1):
            seen = x[k : k + rows]
            for t in range(rows):
                total[t] += seen[t]
        for t in range(rows):
            out[start + t] = total[t] / window
    return out


@njit("float64[::1](float64[::1], int64)", **_OPTIONS)
def deviation(x: np.ndarray, window: int) -> np.ndarray:
    """Standard deviation (n - 1) of the last `window` values, as `moments` has it; one NaN among them makes it NaN."""
    out = np.full(x.size, np.nan)
    for start in range(window - 1, x.size, _BLOCK):
        rows = min(_BLOCK, x.size - start)
        centre, squares = np.zeros(rows), np.zeros(rows)
        for k in range(start - window + 1, start + 1):
            seen = x[k : k + rows]
            for t in range(rows):
                centre[t] += seen[t]
        for t in range(rows):
            centre[t] = centre[t] / window
        for k in range(start - window + 1, start + 1):
            seen = x[k : k + rows]
            for t in range(rows):
                d = seen[t] - centre[t]
                squares[t] += d * d
        for t in range(rows):
            out[start + t] = np.sqrt(squares[t] / (window - 1))
    return out


@njit("float64[:,::1](float64[::1], int64)", **_OPTIONS)
def moments(x: np.ndarray, window: int) -> np.ndarray:
    """(4,T): mean, standard deviation (n - 1), skewness and excess kurtosis (both of the sample, n) of each window."""
    out = np.full((4, x.size), np.nan)
    for start in range(window - 1, x.size, _BLOCK):
        rows = min(_BLOCK, x.size - start)
        centre, m2, m3, m4 = np.zeros(rows), np.zeros(rows), np.zeros(rows), np.zeros(rows)
        for k in range(start - window + 1, start + 1):
            seen = x[k : k + rows]
            for t in range(rows):
                centre[t] += seen[t]
        for t in range(rows):
            centre[t] = centre[t] / window
        for k in range(start - window + 1, start + 1):
            seen = x[k : k + rows]
            for t in range(rows):
                d = seen[t] - centre[t]
                m2[t] += d * d
        for k in range(start - window + 1, start + 1):
            seen = x[k : k + rows]
            for t in range(rows):
                d = seen[t] - centre[t]
                m3[t] += d * d * d
        for k in range(start - window + 1, start + 1):
            seen = x[k : k + rows]
            for t in range(rows):
                d = seen[t] - centre[t]
                m4[t] += (d * d) * (d * d)
        for t in range(rows):
            out[0, start + t] = centre[t]
            out[1, start + t] = np.sqrt(m2[t] / (window - 1))
            variance = m2[t] / window
            out[2, start + t] = m3[t] / window / variance**1.5
            out[3, start + t] = m4[t] / window / (variance * variance) - 3.0
    return out


@njit("float64(float64, float64)", **_OPTIONS)
def _spread(centre: float, count: float) -> float:
    """Summed squares up to which `count` values about `centre` differ by rounding alone."""
    return count * (1e-12 * centre) ** 2


@njit("float64[::1](float64[::1], int64)", **_OPTIONS)
def standard_score(x: np.ndarray, window: int) -> np.ndarray:
    """Of the last value within its window. NaNs are left out; with under half of the window left, or no spread, it is NaN."""
    out = np.full(x.size, np.nan)
    for start in range(window - 1, x.size, _BLOCK):
        rows = min(_BLOCK, x.size - start)
        centre, count, squares = np.zeros(rows), np.zeros(rows), np.zeros(rows)
        for k in range(start - window + 1, start + 1):
            seen = x[k : k + rows]
            for t in range(rows):
                centre[t] += 0.0 if np.isnan(seen[t]) else seen[t]
            for t in range(rows):
                count[t] += 0.0 if np.isnan(seen[t]) else 1.0
        for t in range(rows):
            centre[t] = centre[t] / count[t]
        for k in range(start - window + 1, start + 1):
            seen = x[k : k + rows]
            for t in range(rows):
                d = seen[t] - centre[t]
                squares[t] += 0.0 if np.isnan(d) else d * d
        for t in range(rows):
            if 2.0 * count[t] >= window and squares[t] > _spread(centre[t], count[t]):
                out[start + t] = (x[start + t] - centre[t]) / np.sqrt(squares[t] / (count[t] - 1.0))
    return out


@njit("float64[::1](float64[::1], float64[::1], int64)", **_OPTIONS)
def correlation(x: np.ndarray, y: np.ndarray, window: int) -> np.ndarray:
    """Pearson's, of the last `window` pairs; pairs with a NaN are left out; under half of the window, or no spread, is NaN."""
    out = np.full(x.size, np.nan)
    for start in range(window - 1, x.size, _BLOCK):
        rows = min(_BLOCK, x.size - start)
        mx, my, count = np.zeros(rows), np.zeros(rows), np.zeros(rows)
        xx, yy, xy = np.zeros(rows), np.zeros(rows), np.zeros(rows)
        for k in range(start - window + 1, start + 1):
            a, b = x[k : k + rows], y[k : k + rows]
            for t in range(rows):
                mx[t] += 0.0 if np.isnan(a[t] + b[t]) else a[t]
            for t in range(rows):
                my[t] += 0.0 if np.isnan(a[t] + b[t]) else b[t]
            for t in range(rows):
                count[t] += 0.0 if np.isnan(a[t] + b[t]) else 1.0
        for t in range(rows):
            mx[t], my[t] = mx[t] / count[t], my[t] / count[t]
        for k in range(start - window + 1, start + 1):
            a, b = x[k : k + rows], y[k : k + rows]
            for t in range(rows):
                d = a[t] - mx[t]
                xx[t] += 0.0 if np.isnan(a[t] + b[t]) else d * d
            for t in range(rows):
                d = b[t] - my[t]
                yy[t] += 0.0 if np.isnan(a[t] + b[t]) else d * d
            for t in range(rows):
                d = (a[t] - mx[t]) * (b[t] - my[t])
                xy[t] += 0.0 if np.isnan(d) else d
        for t in range(rows):
            moves = xx[t] > _spread(mx[t], count[t]) and yy[t] > _spread(my[t], count[t])
            if 2.0 * count[t] >= window and moves:
                out[start + t] = xy[t] / np.sqrt(xx[t] * yy[t])
    return out


@njit("float64[::1](float64[::1], float64, int64)", **_OPTIONS)
def ewma_volatility(x: np.ndarray, decay: float, seed_bars: int) -> np.ndarray:
    """sigma_t^2 = decay sigma_(t-1)^2 + (1 - decay) x_t^2 (RiskMetrics 1996), started from the mean square of the first `seed_bars`.

    Leading NaNs are passed over; defined from the last of the seeding bars on.
    """
    out = np.full(x.size, np.nan)
    first = 0
    while first < x.size and np.isnan(x[first]):
        first += 1
    if first + seed_bars > x.size:
        return out
    variance = 0.0
    for k in range(first, first + seed_bars):
        variance += x[k] * x[k] / seed_bars
    out[first + seed_bars - 1] = np.sqrt(variance)
    for t in range(first + seed_bars, x.size):
        variance = decay * variance + (1.0 - decay) * x[t] * x[t]
        out[t] = np.sqrt(variance)
    return out


@njit("float64[::1](float64[::1], int64)", **_OPTIONS)
def share_below(x: np.ndarray, window: int) -> np.ndarray:
    """Share of the `window` values before the last that are below it; NaN where any of them is."""
    out = np.full(x.size, np.nan)
    for t in range(window, x.size):
        below, whole = 0, not np.isnan(x[t])
        for k in range(t - window, t):
            below += x[k] < x[t]
            whole &= not np.isnan(x[k])
        if whole:
            out[t] = below / window
    return out
