"""Windows over many symbols at once: sums that depend on their own window alone, and regressions made of them.

A window is summed as a tree: spans of 1, 2, 4, ... bars, each the sum of two halves, and the window of the spans that it
is made of. That takes log2(window) additions a bar, neither drifts nor depends on where the series begins, and rounds less
than a sum in order. All take x (A,T) float64, contiguous, NaN where a symbol has no value. A window ends at its bar and
counts where at least half of it is there; the first `window` bars have none, since the first bar has no return.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
FLAT = 1e-10
"""Variance over mean square below which a series does not move: float32 returns differ by more, or not at all."""


@njit("void(float64[::1], int64, float64[::1], float64[::1], float64[::1])", **_OPTIONS)
def window_sum(x: np.ndarray, window: int, out: np.ndarray, spans: np.ndarray, longer: np.ndarray) -> None:
    """Sum of the last `window` values, into `out`; the other two are room to work in. Wrong where the window is not full."""
    for t in range(x.size):
        out[t] = 0.0
        spans[t] = x[t]
    taken, span = 0, 1
    while True:  # loops run over slices from 0, which the compiler turns into vector instructions
        if window & span:
            total, part = out[taken:], spans[: max(x.size - taken, 0)]
            for t in range(total.size):
                total[t] += part[t]
            taken += span
        if taken == window:
            return
        double, now, earlier = longer[span:], spans[span:], spans[: max(x.size - span, 0)]
        for t in range(double.size):
            double[t] = now[t] + earlier[t]
        spans, longer = longer, spans
        span *= 2


@njit("float64[:,::1](float64[:,::1], int64)", **_OPTIONS)
def mean(x: np.ndarray, window: int) -> np.ndarray:
    """(A,T) of the values that are there."""
    symbols, bars = x.shape
    out = np.full((symbols, bars), np.nan)
    there, value, count, total = np.zeros(bars), np.zeros(bars), np.zeros(bars), np.zeros(bars)
    room = np.zeros((2, bars))
    for s in range(symbols):
        for t in range(bars):
            known = x[s, t] == x[s, t]
            there[t] = 1.0 if known else 0.0
            value[t] = x[s, t] if known else 0.0
        window_sum(there, window, count, room[0], room[1])
        window_sum(value, window, total, room[0], room[1])
        for t in range(window, bars):
            if 2 * count[t] >= window:
                out[s, t] = total[t] / count[t]
    return out


@njit("float64[:,:,::1](float64[:,::1], float64[:,::1], int64, int64)", **_OPTIONS)
def regression(x: np.ndarray, y: np.ndarray, window: int, least: int) -> np.ndarray:
    """Of x on y, with a constant, over the bars that have both; NaN with fewer than `least` of them, or 3.

    Returns
    -------
    (3,A,T): slope, correlation, and standard deviation of the residual (n - 2). Where y does not move all are NaN; where
    only x does not, there is no correlation.
    """
    symbols, bars = x.shape
    out = np.full((3, symbols, bars), np.nan)
    terms, sums, room = np.zeros((6, bars)), np.zeros((6, bars)), np.zeros((2, bars))
    one, only_x, only_y, square_x, square_y, product = terms[0], terms[1], terms[2], terms[3], terms[4], terms[5]
    count, sum_x, sum_y, sum_xx, sum_yy, sum_xy = sums[0], sums[1], sums[2], sums[3], sums[4], sums[5]
    least = max(least, 3)
    for s in range(symbols):
        left, right = x[s], y[s]
        for t in range(bars):
            pair = left[t] + right[t]
            both = pair == pair
            p = left[t] if both else 0.0
            q = right[t] if both else 0.0
            one[t] = 1.0 if both else 0.0
            only_x[t] = p
            only_y[t] = q
            square_x[t] = p * p
            square_y[t] = q * q
            product[t] = p * q
        for k in range(6):
            window_sum(terms[k], window, sums[k], room[0], room[1])
        slope, correlation, residual = out[0, s], out[1, s], out[2, s]
        for t in range(bars):  # without branches, for the same reason
            n = count[t]
            xx = sum_xx[t] - sum_x[t] * sum_x[t] / n
            yy = sum_yy[t] - sum_y[t] * sum_y[t] / n
            xy = sum_xy[t] - sum_x[t] * sum_y[t] / n
            moves = n >= least and yy > FLAT * sum_yy[t]
            beta = xy / yy
            rest = xx - beta * xy
            r = xy / np.sqrt(xx * yy)
            r = r if r < 1.0 else 1.0
            r = r if r > -1.0 else -1.0
            slope[t] = beta if moves else np.nan
            correlation[t] = r if moves and xx > FLAT * sum_xx[t] else np.nan
            residual[t] = np.sqrt((rest if rest > 0.0 else 0.0) / (n - 2.0)) if moves else np.nan
        out[:, s, : min(window, bars)] = np.nan
    return out


@njit("float64[:,::1](float64[:,::1], int64[::1])", **_OPTIONS)
def mean_of_others(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(A,T) mean over the group's other symbols; NaN where there is none, and outside of any group (-1).

    Those before and those after are added up apart: taking a symbol out of the sum of all would leave its rounding in.
    """
    symbols, bars = x.shape
    out = np.full((symbols, bars), np.nan)
    groups = group.max() + 1 if symbols else 0
    total, count = np.zeros((groups, bars)), np.zeros((groups, bars))
    sums, counts = np.zeros((symbols, bars)), np.zeros((symbols, bars))
    for turn in range(2):
        total[:], count[:] = 0.0, 0.0
        for k in range(symbols):
            s = k if turn == 0 else symbols - 1 - k
            g = group[s]
            if g < 0:
                continue
            for t in range(bars):
                sums[s, t] += total[g, t]
                counts[s, t] += count[g, t]
                if not np.isnan(x[s, t]):
                    total[g, t] += x[s, t]
                    count[g, t] += 1.0
    for s in range(symbols):
        for t in range(bars):
            if counts[s, t] > 0.0:
                out[s, t] = sums[s, t] / counts[s, t]
    return out


@njit("float64[:,:,::1](float64[:,::1], int64[::1])", **_OPTIONS)
def spread(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(2,G,T): mean over the group's symbols of the bar, and their standard deviation (n - 1), which needs two."""
    symbols, bars = x.shape
    groups = max(group.max() + 1, 1) if symbols else 1
    out, count = np.zeros((2, groups, bars)), np.zeros((groups, bars))
    for s in range(symbols):
        g = group[s]
        if g >= 0:
            for t in range(bars):
                if not np.isnan(x[s, t]):
                    out[0, g, t] += x[s, t]
                    count[g, t] += 1.0
    out[0] /= count
    for s in range(symbols):
        g = group[s]
        if g >= 0:
            for t in range(bars):
                if not np.isnan(x[s, t]):
                    out[1, g, t] += (x[s, t] - out[0, g, t]) ** 2
    out[1] = np.sqrt(out[1] / np.where(count > 1.0, count - 1.0, np.nan))
    return out


@njit("float64[:,::1](float64[:,::1], float64[:,::1])", **_OPTIONS)
def residual_across(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(A,T): what a line through the bar's symbols, of x on y, leaves of x: its mean alone where y does not differ.

    NaN with fewer than 3 symbols.
    """
    symbols, bars = x.shape
    out = np.full((symbols, bars), np.nan)
    for t in range(bars):
        n, mx, my = 0, 0.0, 0.0
        for s in range(symbols):
            if not (np.isnan(x[s, t]) or np.isnan(y[s, t])):
                n += 1
                mx += x[s, t]
                my += y[s, t]
        if n < 3:
            continue
        mx /= n
        my /= n
        xy, yy, size = 0.0, 0.0, 0.0
        for s in range(symbols):
            if not (np.isnan(x[s, t]) or np.isnan(y[s, t])):
                xy += (x[s, t] - mx) * (y[s, t] - my)
                yy += (y[s, t] - my) ** 2
                size += y[s, t] * y[s, t]
        slope = xy / yy if yy > FLAT * size else 0.0
        for s in range(symbols):
            out[s, t] = x[s, t] - mx - slope * (y[s, t] - my)
    return out
