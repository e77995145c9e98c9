"""Trailing-window kernels whose every value depends on its own window alone.

Each window is summed afresh, in order: no running sums, so no drift, and the same bits whatever comes before or after.
All take x (T,) float64, contiguous, and give (T,) float64, NaN until the window is full.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}


@njit("float64[::1](float64[::1], int64)", **_OPTIONS)
def mean(x: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` values; one NaN among them makes it NaN."""
    out = np.full(x.size, np.nan)
    for t in range(window - 1, x.size):
        total = 0.0
        for k in range(t - window + 1, t + 1):
            total += x[k]
        out[t] = total / window
    return out


@njit("float64[:,::1](float64[::1], int64)", **_OPTIONS)
def moments(x: np.ndarray, window: int) -> np.ndarray:
    """(4,T): mean, standard deviation (n - 1), skewness and excess kurtosis (both of the sample, n) of each window."""
    out = np.full((4, x.size), np.nan)
    for t in range(window - 1, x.size):
        total = 0.0
        for k in range(t - window + 1, t + 1):
            total += x[k]
        centre = total / window
        m2, m3, m4 = 0.0, 0.0, 0.0
        for k in range(t - window + 1, t + 1):
            d = x[k] - centre
            square = d * d
            m2 += square
            m3 += square * d
            m4 += square * square
        out[0, t] = centre
        out[1, t] = np.sqrt(m2 / (window - 1))
        variance = m2 / window
        out[2, t] = m3 / window / variance**1.5
        out[3, t] = m4 / window / (variance * variance) - 3.0
    return out


@njit("float64[::1](float64[::1], int64)", **_OPTIONS)
def standard_score(x: np.ndarray, window: int) -> np.ndarray:
    """Of the last value within its window. NaNs are left out; with under half of the window left, or no spread, it is NaN."""
    out = np.full(x.size, np.nan)
    for t in range(window - 1, x.size):
        total, count = 0.0, 0
        for k in range(t - window + 1, t + 1):
            if not np.isnan(x[k]):
                total += x[k]
                count += 1
        if 2 * count < window:
            continue
        centre = total / count
        squares = 0.0
        for k in range(t - window + 1, t + 1):
            if not np.isnan(x[k]):
                squares += (x[k] - centre) ** 2
        out[t] = (x[t] - centre) / np.sqrt(squares / (count - 1))
    return out


@njit("float64[::1](float64[::1], float64[::1], int64)", **_OPTIONS)
def correlation(x: np.ndarray, y: np.ndarray, window: int) -> np.ndarray:
    """Pearson's, of the last `window` pairs; pairs with a NaN are left out, under half of the window is NaN."""
    out = np.full(x.size, np.nan)
    for t in range(window - 1, x.size):
        sx, sy, count = 0.0, 0.0, 0
        for k in range(t - window + 1, t + 1):
            if not (np.isnan(x[k]) or np.isnan(y[k])):
                sx += x[k]
                sy += y[k]
                count += 1
        if 2 * count < window:
            continue
        mx, my = sx / count, sy / count
        xx, yy, xy = 0.0, 0.0, 0.0
        for k in range(t - window + 1, t + 1):
            if not (np.isnan(x[k]) or np.isnan(y[k])):
                xx += (x[k] - mx) ** 2
                yy += (y[k] - my) ** 2
                xy += (x[k] - mx) * (y[k] - my)
        out[t] = xy / np.sqrt(xx * yy)
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
