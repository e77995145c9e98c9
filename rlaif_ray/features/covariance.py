"""How a universe moves as one: turbulence, absorption and average correlation, each from the matrix of its own window.

All take returns (A,T) float64, NaN where a symbol has none. A symbol counts at a bar where it has a return and at least
half of the window before has one, and where it moved at all; nothing is said of fewer than two. A return that is missing
in the window counts as the symbol's mean: variances are those of the returns that are there, correlations shrink by what
is not, and the matrix stays positive semi-definite. There is no shrinkage besides; where the matrix is singular (a symbol
held twice, more symbols than bars) its pseudo-inverse stands for the inverse.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from rlaif_ray.features.co_movement import FLAT, window_sum

_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}
_SINGULAR = 1e-10  # of a correlation matrix: a pivot or an eigenvalue, over the largest, that is rounding
TOP_SHARE = 0.2
"""Of the eigenvectors whose variance counts as absorbed: a fifth of the number of symbols (Kritzman et al. 2011)."""


@njit("Tuple((float64[:,::1], float64[::1], float64[::1]))(float64[:,::1], int64, int64, int64)", **_OPTIONS)
def _window(returns: np.ndarray, first: int, last: int, now: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bars first..last of the n symbols that count at `now`.

    Returns
    -------
    u (n,W): deviations from the symbol's mean, scaled to length 1, so that u u' is the correlation matrix; sigma (n,):
    standard deviations (n - 1); z (n,): the return at `now` in those, from the mean.
    """
    symbols, bars = returns.shape[0], last - first + 1
    u, sigma, z = np.zeros((symbols, bars)), np.empty(symbols), np.empty(symbols)
    n = 0
    for s in range(symbols):
        if np.isnan(returns[s, now]):
            continue
        count, total, squares, size = 0, 0.0, 0.0, 0.0
        for t in range(first, last + 1):
            if not np.isnan(returns[s, t]):
                count += 1
                total += returns[s, t]
        if 2 * count < bars or count < 2:
            continue
        mean = total / count
        for t in range(first, last + 1):
            deviation = returns[s, t] - mean if not np.isnan(returns[s, t]) else 0.0
            u[n, t - first] = deviation
            squares += deviation * deviation
            size += (deviation + mean) ** 2
        if squares > FLAT * size:
            u[n] /= np.sqrt(squares)
            sigma[n] = np.sqrt(squares / (count - 1))
            z[n] = (returns[s, now] - mean) / sigma[n]
            n += 1
    return u[:n].copy(), sigma[:n].copy(), z[:n].copy()


@njit("float64(float64[:,::1], float64[::1])", **_OPTIONS)
def _squared_length(u: np.ndarray, z: np.ndarray) -> float:
    """z' (u u')^-1 z, by Cholesky: |y|^2 with L y = z; NaN where u u' is singular."""
    n = len(z)
    if n >= u.shape[1]:
        return np.nan
    c, y, total = np.dot(u, u.T), z.copy(), 0.0
    for j in range(n):
        if c[j, j] < _SINGULAR:
            return np.nan
        pivot = np.sqrt(c[j, j])
        y[j] /= pivot
        total += y[j] * y[j]
        for k in range(j + 1, n):
            c[j, k] /= pivot
        for k in range(j + 1, n):
            y[k] -= c[j, k] * y[j]
            for i in range(k, n):
                c[k, i] -= c[j, k] * c[j, i]
    return total


@njit("float64(float64[:,::1], float64[::1])", **_OPTIONS)
def _squared_length_by_pseudo_inverse(u: np.ndarray, z: np.ndarray) -> float:
    """z' (u u')^+ z, from the smaller of u u' and u' u, which have the same eigenvalues but for zeros."""
    wide = len(u) <= u.shape[1]
    values, vectors = np.linalg.eigh(np.dot(u, u.T) if wide else np.dot(u.T, u))
    along = np.dot(vectors.T, z if wide else np.dot(u.T, z))
    total = 0.0
    for k in range(len(values)):
        if values[k] > _SINGULAR * values[-1]:
            total += along[k] * along[k] / (values[k] if wide else values[k] * values[k])
    return total


@njit("float64[:,::1](float64[:,::1], int64)", **_OPTIONS)
def turbulence(returns: np.ndarray, window: int) -> np.ndarray:
    """How unusual the bar is for the `window` bars BEFORE it, which alone make mean and covariance.

    Returns
    -------
    (2,T): squared Mahalanobis distance of the bar's returns (Kritzman and Li 2010), and the same without the
    covariances (the magnitude of Kinlaw and Turkington 2014), both over the number of symbols, so that 1 is usual.
    """
    bars = returns.shape[1]
    out = np.full((2, bars), np.nan)
    for t in range(window + 1, bars):
        u, _, z = _window(returns, t - window, t - 1, t)
        if len(z) < 2:
            continue
        squared = _squared_length(u, z)
        if np.isnan(squared):
            squared = _squared_length_by_pseudo_inverse(u, z)
        total = 0.0
        for x in z:
            total += x * x
        out[0, t], out[1, t] = squared / len(z), total / len(z)
    return out


@njit("float64[::1](float64[:,::1], int64)", **_OPTIONS)
def absorption(returns: np.ndarray, window: int) -> np.ndarray:
    """(T,) share of the variance that the top fifth of the covariance matrix's eigenvectors take up; all bars weigh the same."""
    bars = returns.shape[1]
    out = np.full(bars, np.nan)
    for t in range(window, bars):
        u, sigma, _ = _window(returns, t - window + 1, t, t)
        if len(sigma) < 2:
            continue
        for k in range(len(sigma)):
            u[k] *= sigma[k]
        values = np.linalg.eigvalsh(np.dot(u, u.T) if len(sigma) <= window else np.dot(u.T, u))
        top = max(1, int(np.round(TOP_SHARE * len(sigma))))
        taken, total = 0.0, 0.0
        for k in range(len(values)):
            total += values[k]
            if k >= len(values) - top:
                taken += values[k]
        out[t] = taken / total
    return out


@njit("float64[::1](float64[:,::1], int64)", **_OPTIONS)
def average_correlation(returns: np.ndarray, window: int) -> np.ndarray:
    """(T,) mean correlation over all pairs of symbols: (|sum of u|^2 - n) / (n (n - 1)) for deviations u of length 1.

    No u is made: a symbol adds its returns over the length of its deviations, less its mean over that where it has one.
    """
    symbols, bars = returns.shape
    there, value = np.zeros((symbols, bars)), np.zeros((symbols, bars))
    scale, shift = np.zeros((symbols, bars)), np.zeros((symbols, bars))
    square, sums, room = np.zeros(bars), np.zeros((3, bars)), np.zeros((2, bars))
    for s in range(symbols):
        for t in range(bars):
            known = returns[s, t] == returns[s, t]
            there[s, t] = 1.0 if known else 0.0
            value[s, t] = returns[s, t] if known else 0.0
            square[t] = value[s, t] * value[s, t]
        window_sum(there[s], window, sums[0], room[0], room[1])
        window_sum(value[s], window, sums[1], room[0], room[1])
        window_sum(square, window, sums[2], room[0], room[1])
        for t in range(window, bars):
            mean = sums[1, t] / sums[0, t]
            squares = sums[2, t] - sums[1, t] * mean
            if there[s, t] > 0.0 and 2.0 * sums[0, t] >= window and squares > FLAT * sums[2, t]:
                scale[s, t] = 1.0 / np.sqrt(squares)
                shift[s, t] = mean * scale[s, t]
    out, total = np.full(bars, np.nan), np.empty(window)
    for t in range(window, bars):
        n, squares = 0, 0.0
        total[:] = 0.0
        for s in range(symbols):
            by, less = scale[s, t], shift[s, t]
            if by > 0.0:
                x, one = value[s, t - window + 1 : t + 1], there[s, t - window + 1 : t + 1]
                for k in range(window):
                    total[k] += by * x[k] - less * one[k]
                n += 1
        for k in range(window):
            squares += total[k] * total[k]
        if n > 1:
            out[t] = (squares - n) / (n * (n - 1))
    return out
