"""Trailing-window kernels whose every value depends on its own window alone.

Each window is summed afresh, in order: no running sums, so no drift, and the same bits whatever comes before or after.
All take x (T,) float64, contiguous, and give (T,) float64, NaN until the window is full.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
_BLOCK = 256  # windows summed side by side: a processor adds eight at once, each still in its own order


@njit("void(float64[::1], int64, float64[::1])", **_OPTIONS)
def _averages(x: np.ndarray, window: int, out: np.ndarray) -> None:
    """Means of the windows that begin at x[0], x[1], ...: as many as `out` has room for."""
    out[:] = 0.0
    k = 0
    while k + 4 <= window:  # four values a pass: adding is faster than the way to memory and back
        a, b, c, d = x[k:], x[k + 1 :], x[k + 2 :], x[k + 3 :]
        for t in range(out.size):
            out[t] = out[t] + a[t] + b[t] + c[t] + d[t]
        k += 4
    while k < window:
        a = x[k:]
        for t in range(out.size):
            out[t] += a[t]
        k += 1
    for t in range(out.size):
        out[t] = out[t] / window


@njit(f"void({', '.join(['float64[::1]'] * 4)}, int64, {', '.join(['float64[::1]'] * 3)})", **_OPTIONS)
def _products(
    x: np.ndarray, y: np.ndarray, mx: np.ndarray, my: np.ndarray, window: int, xx: np.ndarray, yy: np.ndarray, xy: np.ndarray
) -> None:
    """Sums of (x - mx)^2, (y - my)^2 and (x - mx) (y - my) of the same windows."""
    xx[:], yy[:], xy[:] = 0.0, 0.0, 0.0
    k = 0
    while k + 4 <= window:
        a, b, c, d = x[k:], x[k + 1 :], x[k + 2 :], x[k + 3 :]
        e, f, g, h = y[k:], y[k + 1 :], y[k + 2 :], y[k + 3 :]
        for t in range(xx.size):
            p, q, r, s = a[t] - mx[t], b[t] - mx[t], c[t] - mx[t], d[t] - mx[t]
            u, v, w, z = e[t] - my[t], f[t] - my[t], g[t] - my[t], h[t] - my[t]
            xx[t] = xx[t] + p * p + q * q + r * r + s * s
            yy[t] = yy[t] + u * u + v * v + w * w + z * z
            xy[t] = xy[t] + p * u + q * v + r * w + s * z
        k += 4
    while k < window:
        a, e = x[k:], y[k:]
        for t in range(xx.size):
            p, u = a[t] - mx[t], e[t] - my[t]
            xx[t] += p * p
            yy[t] += u * u
            xy[t] += p * u
        k += 1


@njit("void(float64[::1], float64[::1], int64, float64[::1])", **_OPTIONS)
def _squares(x: np.ndarray, centre: np.ndarray, window: int, out: np.ndarray) -> None:
    """Sums of (x - centre)^2 of the same windows."""
    out[:] = 0.0
    k = 0
    while k + 4 <= window:
        a, b, c, d = x[k:], x[k + 1 :], x[k + 2 :], x[k + 3 :]
        for t in range(out.size):
            m = centre[t]
            out[t] = out[t] + (a[t] - m) * (a[t] - m) + (b[t] - m) * (b[t] - m) + (c[t] - m) * (c[t] - m) + (d[t] - m) * (d[t] - m)
        k += 4
    while k < window:
        a = x[k:]
        for t in range(out.size):
            out[t] += (a[t] - centre[t]) * (a[t] - centre[t])
        k += 1


@njit("void(float64[::1], float64[::1], int64, float64[::1], float64[::1], float64[::1])", **_OPTIONS)
def _powers(x: np.ndarray, centre: np.ndarray, window: int, m2: np.ndarray, m3: np.ndarray, m4: np.ndarray) -> None:
    """Sums of (x - centre)^2, ^3 and ^4 of the windows that begin at x[0], x[1], ..."""
    m2[:], m3[:], m4[:] = 0.0, 0.0, 0.0
    k = 0
    while k + 4 <= window:
        a, b, c, d = x[k:], x[k + 1 :], x[k + 2 :], x[k + 3 :]
        for t in range(centre.size):
            p, q, r, s = a[t] - centre[t], b[t] - centre[t], c[t] - centre[t], d[t] - centre[t]
            pp, qq, rr, ss = p * p, q * q, r * r, s * s
            m2[t] = m2[t] + pp + qq + rr + ss
            m3[t] = m3[t] + pp * p + qq * q + rr * r + ss * s
            m4[t] = m4[t] + pp * pp + qq * qq + rr * rr + ss * ss
        k += 4
    while k < window:
        a = x[k:]
        for t in range(centre.size):
            p = a[t] - centre[t]
            m2[t] += p * p
            m3[t] += p * p * p
            m4[t] += (p * p) * (p * p)
        k += 1


@njit("float64[::1](float64[::1], int64)", **_OPTIONS)
def mean(x: np.ndarray, window: int) -> np.ndarray:
    """Mean of the last `window` values; one NaN among them makes it NaN."""
    out = np.empty(x.size)
    out[: window - 1] = np.nan
    for start in range(window - 1, x.size, _BLOCK):
        _averages(x[start - window + 1 :], window, out[start : start + _BLOCK])
    return out


@njit("float64[::1](float64[::1], int64)", **_OPTIONS)
def deviation(x: np.ndarray, window: int) -> np.ndarray:
    """Standard deviation (n - 1) of the last `window` values, as `moments` has it; one NaN among them makes it NaN."""
    out, room = np.empty(x.size), np.empty(_BLOCK)
    out[: window - 1] = np.nan
    for start in range(window - 1, x.size, _BLOCK):
        seen, made = x[start - window + 1 :], out[start : start + _BLOCK]
        centre = room[: made.size]
        _averages(seen, window, centre)
        _squares(seen, centre, window, made)
        for t in range(made.size):
            made[t] = np.sqrt(made[t] / (window - 1))
    return out


@njit("float64[:,::1](float64[::1], int64)", **_OPTIONS)
def moments(x: np.ndarray, window: int) -> np.ndarray:
    """(4,T): mean, standard deviation (n - 1), skewness and excess kurtosis (both of the sample, n) of each window."""
    out = np.empty((4, x.size))
    out[:, : window - 1] = np.nan
    for start in range(window - 1, x.size, _BLOCK):
        seen, end = x[start - window + 1 :], start + _BLOCK
        centre, m2, m3, m4 = out[0, start:end], out[1, start:end], out[2, start:end], out[3, start:end]
        _averages(seen, window, centre)
        _powers(seen, centre, window, m2, m3, m4)
        for t in range(centre.size):
            variance = m2[t] / window
            m2[t] = np.sqrt(m2[t] / (window - 1))
            m3[t] = m3[t] / window / (variance * np.sqrt(variance))
            m4[t] = m4[t] / window / (variance * variance) - 3.0
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
        first = x[start - window + 1 : start + rows]
        centre, count, squares = np.zeros(rows), np.zeros(rows), np.zeros(rows)
        if np.isnan(first).any():
            for k in range(window):
                seen = first[k:]
                for t in range(rows):
                    centre[t] += 0.0 if np.isnan(seen[t]) else seen[t]
                for t in range(rows):
                    count[t] += 0.0 if np.isnan(seen[t]) else 1.0
            for t in range(rows):
                centre[t] = centre[t] / count[t]
            for k in range(window):
                seen = first[k:]
                for t in range(rows):
                    d = seen[t] - centre[t]
                    squares[t] += 0.0 if np.isnan(d) else d * d
        else:
            count[:] = window
            _averages(first, window, centre)
            _squares(first, centre, window, squares)
        for t in range(rows):
            known = (2.0 * count[t] >= window) & (squares[t] > _spread(centre[t], count[t]))
            score = (x[start + t] - centre[t]) / np.sqrt(squares[t] / (count[t] - 1.0))
            out[start + t] = score if known else np.nan
    return out


@njit("float64[::1](float64[::1], float64[::1], int64)", **_OPTIONS)
def correlation(x: np.ndarray, y: np.ndarray, window: int) -> np.ndarray:
    """Pearson's, of the last `window` pairs; pairs with a NaN are left out; under half of the window, or no spread, is NaN."""
    out = np.full(x.size, np.nan)
    for start in range(window - 1, x.size, _BLOCK):
        rows = min(_BLOCK, x.size - start)
        u, v = x[start - window + 1 : start + rows], y[start - window + 1 : start + rows]
        mx, my, count = np.zeros(rows), np.zeros(rows), np.zeros(rows)
        xx, yy, xy = np.zeros(rows), np.zeros(rows), np.zeros(rows)
        if np.isnan(u + v).any():
            for k in range(window):
                a, b = u[k:], v[k:]
                for t in range(rows):
                    mx[t] += 0.0 if np.isnan(a[t] + b[t]) else a[t]
                for t in range(rows):
                    my[t] += 0.0 if np.isnan(a[t] + b[t]) else b[t]
                for t in range(rows):
                    count[t] += 0.0 if np.isnan(a[t] + b[t]) else 1.0
            for t in range(rows):
                mx[t], my[t] = mx[t] / count[t], my[t] / count[t]
            for k in range(window):
                a, b = u[k:], v[k:]
                for t in range(rows):
                    d = a[t] - mx[t]
                    xx[t] += 0.0 if np.isnan(a[t] + b[t]) else d * d
                for t in range(rows):
                    d = b[t] - my[t]
                    yy[t] += 0.0 if np.isnan(a[t] + b[t]) else d * d
                for t in range(rows):
                    d = (a[t] - mx[t]) * (b[t] - my[t])
                    xy[t] += 0.0 if np.isnan(d) else d
        else:
            count[:] = window
            _averages(u, window, mx)
            _averages(v, window, my)
            _products(u, v, mx, my, window, xx, yy, xy)
        for t in range(rows):
            moves = (xx[t] > _spread(mx[t], count[t])) & (yy[t] > _spread(my[t], count[t]))
            together = xy[t] / np.sqrt(xx[t] * yy[t])
            out[start + t] = together if moves & (2.0 * count[t] >= window) else np.nan
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
