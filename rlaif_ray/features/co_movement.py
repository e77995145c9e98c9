"""Windows over many symbols at once: sums that depend on their own window alone, and regressions made of them.

A window is summed as a tree: of three thirds where its length divides by three, else of two halves, with a bar more where it
is odd, and these likewise. That takes some log2(window) additions a bar, neither drifts nor depends on where the series
begins, and rounds less than a sum in order. Loops run over slices from 0, without branches, which the compiler turns into
vector instructions. All take x (A,T) float64, contiguous, NaN where a symbol has no value. A window ends at its bar and
counts where at least half of it is there; the first `window` bars have none, since the first bar has no return.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
FLAT = 1e-10
"""Variance over mean square below which a series does not move: float32 returns differ by more, or not at all."""
BLOCK = 1536
"""Bars that are worked on at a time, so that what they need stays in the cache; no value depends on it."""


@njit("int64(int64)", **_OPTIONS)
def _part(window: int) -> int:
    """The length of the parts that a window is made of."""
    return window // 3 if window % 3 == 0 else window // 2


@njit("void(float64[::1], int64, float64[::1], float64[::1], float64[::1])", **_OPTIONS)
def window_sum(x: np.ndarray, window: int, out: np.ndarray, room: np.ndarray, more_room: np.ndarray) -> None:
    """Sum of the last `window` values, into `out` where the window is full; the other two are room to work in."""
    out = out[window - 1 :]
    if window == 1:
        out[:] = x
    length, spans = 1, x  # spans[t]: the sum of x[t : t + length]
    while length < window:
        longer = window
        while _part(longer) > length:
            longer = _part(longer)
        made = (out if longer == window else room)[: max(x.size - longer + 1, 0)]
        second = spans[length:]
        if longer == 2 * length:
            for t in range(made.size):
                made[t] = spans[t] + second[t]
        else:
            third = (spans if longer == 3 * length else x)[2 * length :]
            for t in range(made.size):
                made[t] = (spans[t] + second[t]) + third[t]
        length, spans = longer, made
        room, more_room = more_room, room


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
    out = np.empty((3, symbols, bars))
    out[:, :, :window] = np.nan
    terms, sums, room = np.empty((5, window + BLOCK)), np.empty((5, window + BLOCK)), np.empty((2, window + BLOCK))
    pairs = np.empty(window + BLOCK, np.int64)
    least = max(least, 3)
    for s in range(symbols):
        for start in range(window, bars, BLOCK):
            left, right = x[s, start - window : start + BLOCK], y[s, start - window : start + BLOCK]
            size = left.size
            only_x, only_y, square_x = terms[0, :size], terms[1, :size], terms[2, :size]
            square_y, product, there = terms[3, :size], terms[4, :size], pairs[:size]
            for t in range(size):
                pair = left[t] + right[t]
                both = pair == pair
                p = left[t] if both else 0.0
                q = right[t] if both else 0.0
                there[t] = 1 if both else 0
                only_x[t] = p
                only_y[t] = q
                square_x[t] = p * p
                square_y[t] = q * q
                product[t] = p * q
            for k in range(5):
                window_sum(terms[k, :size], window, sums[k, :size], room[0], room[1])
            for t in range(1, size):  # whole numbers do not round: a difference of running counts is exact
                there[t] += there[t - 1]
            upto, before = there[window:], there[: size - window]
            sum_x, sum_y, sum_xx = sums[0, window:size], sums[1, window:size], sums[2, window:size]
            sum_yy, sum_xy = sums[3, window:size], sums[4, window:size]
            slope, correlation = out[0, s, start : start + BLOCK], out[1, s, start : start + BLOCK]
            residual = out[2, s, start : start + BLOCK]
            for t in range(slope.size):
                n = float(upto[t] - before[t])
                xx = n * sum_xx[t] - sum_x[t] * sum_x[t]
                yy = n * sum_yy[t] - sum_y[t] * sum_y[t]
                xy = n * sum_xy[t] - sum_x[t] * sum_y[t]
                moves = n >= least and yy > FLAT * n * sum_yy[t]
                beta = xy / yy
                rest = xx - beta * xy
                r = xy / np.sqrt(xx * yy)
                r = r if r < 1.0 else 1.0
                r = r if r > -1.0 else -1.0
                slope[t] = beta if moves else np.nan
                correlation[t] = r if moves and xx > FLAT * n * sum_xx[t] else np.nan
                residual[t] = np.sqrt((rest if rest > 0.0 else 0.0) / (n * (n - 2.0))) if moves else np.nan
    return out


@njit("float64[:,::1](float64[:,::1], int64[::1])", **_OPTIONS)
def mean_of_others(x: np.ndarray, group: np.ndarray) -> np.ndarray:
    """(A,T) mean over the group's other symbols; NaN where there is none, and outside of any group (-1).

    Those before and those after are added up apart: taking a symbol out of the sum of all would leave its rounding in.
    """
    symbols, bars = x.shape
    out = np.empty((symbols, bars))
    groups = group.max() + 1 if symbols else 0
    sums, counts = np.empty((groups, BLOCK)), np.empty((groups, BLOCK))
    for start in range(0, bars, BLOCK):
        sums[:], counts[:] = 0.0, 0.0
        for s in range(symbols):
            if group[s] < 0:
                out[s, start : start + BLOCK] = np.nan
            else:
                value, others = x[s, start : start + BLOCK], out[s, start : start + BLOCK]
                total, count = sums[group[s]], counts[group[s]]
                for t in range(value.size):
                    known = value[t] == value[t]
                    others[t] = total[t]
                    total[t] += value[t] if known else 0.0
                    count[t] += 1.0 if known else 0.0
        sums[:] = 0.0
        for s in range(symbols - 1, -1, -1):
            if group[s] >= 0:
                value, others = x[s, start : start + BLOCK], out[s, start : start + BLOCK]
                total, count = sums[group[s]], counts[group[s]]
                for t in range(value.size):
                    known = value[t] == value[t]
                    others[t] = (others[t] + total[t]) / (count[t] - (1.0 if known else 0.0))
                    total[t] += value[t] if known else 0.0
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
