"""Change points as they are met: CUSUM sums, and the run length by Bayes' rule. Recursions from the first value on.

Both take z (T,) float64, standardised by what was known before; NaN (no spread to standardise by) changes nothing, and the
last answer stands.
"""

from __future__ import annotations

from math import lgamma

import numpy as np
from numba import njit

_OPTIONS = {"cache": True, "error_model": "numpy", "nogil": True}


@njit("float64[:,::1](float64[::1], float64, float64)", **_OPTIONS)
def cusum(z: np.ndarray, drift: float, alarm: float) -> np.ndarray:
    """(3,T): upper sum max(0, S + z - drift), lower sum max(0, S - z - drift), and bars since the last alarm.

    Page (1954); the tabular form of Montgomery, Introduction to Statistical Quality Control, chapter 9. The bar on which a
    sum passes `alarm` shows that sum and 0 bars; both sums start again behind it. Until the first alarm bars are counted
    from the first z.
    """
    out = np.full((3, z.size), np.nan)
    upper, lower, bars, begun = 0.0, 0.0, -1.0, False
    for t in range(z.size):
        if not np.isnan(z[t]):
            begun = True
            upper, lower = max(0.0, upper + z[t] - drift), max(0.0, lower - z[t] - drift)
        if not begun:
            continue
        rung = max(upper, lower) > alarm
        bars = 0.0 if rung else bars + 1.0
        out[0, t], out[1, t], out[2, t] = upper, lower, bars
        if rung:
            upper, lower = 0.0, 0.0
    return out


def run_length(z: np.ndarray, mean_run: int, longest: int, recent: int) -> np.ndarray:
    """(2,T): expected length of the current run in bars, this one among them, and P(it is no longer than `recent`).

    Bayesian online change point detection (Adams and MacKay 2007) for a normal law of unknown mean and variance: within a
    run z ~ N(m, s^2), with m | s^2 ~ N(0, s^2) and 1/s^2 ~ Gamma(1, 1), so that the next z of a run is Student's t. Before
    every bar a new run begins with probability 1/mean_run.

    Run lengths end at `longest`, which stands for that many bars or more and goes by the last `longest` of them: the work
    for each bar is bounded, and nothing is summed up over more than that.
    """
    n = np.arange(longest + 1)
    constant = np.array([lgamma(1.5 + k / 2.0) - lgamma(1.0 + k / 2.0) for k in n]) - 0.5 * np.log(np.pi)
    return _run_length(np.ascontiguousarray(z, np.float64), 1.0 / mean_run, constant, recent)


@njit("float64[:,::1](float64[::1], float64, float64[::1], int64)", **_OPTIONS)
def _run_length(z: np.ndarray, hazard: float, constant: np.ndarray, recent: int) -> np.ndarray:
    """`constant[n]`: log of Gamma(a + 1/2) / (Gamma(a) sqrt(pi)), a = 1 + n/2, of the t after n values."""
    longest = constant.size - 1
    out = np.full((2, z.size), np.nan)
    seen = np.empty(z.size)  # the values that are defined, in order
    count = 0
    weight, log_density = np.zeros(longest + 1), np.empty(longest + 1)  # of run lengths 0 (no value yet) ... longest
    expected, young = np.nan, np.nan
    for t in range(z.size):
        x = z[t]
        if not np.isnan(x):
            known = min(count, longest)
            mean, squares, best = 0.0, 0.0, -np.inf
            for n in range(known + 1):  # the density of x where the run so far is the last n values
                if n:
                    y = seen[count - n]
                    d = y - mean
                    mean += d / n
                    squares += d * (y - mean)
                kappa, beta = 1.0 + n, 1.0 + 0.5 * squares + 0.5 * n * mean * mean / (1.0 + n)
                spread = 2.0 * beta * (kappa + 1.0) / kappa  # degrees of freedom x squared scale, 2 a x beta (kappa + 1) / (a kappa)
                off = x - n * mean / kappa
                log_density[n] = constant[n] - 0.5 * np.log(spread) - (1.5 + 0.5 * n) * np.log1p(off * off / spread)
                if (weight[n] > 0.0 or n == 0) and log_density[n] > best:
                    best = log_density[n]
            born = hazard * np.exp(log_density[0] - best) if count else 1.0
            oldest, total = 0.0, born
            for n in range(known, 0, -1):
                grown = weight[n] * (1.0 - hazard) * np.exp(log_density[n] - best)
                total += grown
                if n == longest:
                    oldest = grown
                elif n == longest - 1:
                    weight[longest] = oldest + grown
                else:
                    weight[n + 1] = grown
            if longest == 1:
                born += oldest
            weight[1] = born
            expected, young = 0.0, 0.0
            for n in range(1, min(count + 1, longest) + 1):
                weight[n] /= total
                expected += n * weight[n]
                if n <= recent:
                    young += weight[n]
            seen[count] = x
            count += 1
        out[0, t], out[1, t] = expected, young
    return out
