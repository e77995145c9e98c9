"""What a portfolio may lose in one bar: value at risk and the mean loss beyond it, from the returns that were seen.

Losses are positive fractions of equity. VaR at level 0.99 is what one bar in a hundred should lose more than; CVaR, the
expected shortfall, is the mean of the worst hundredth. Three ways: the returns as they were, Cornish and Fisher's expansion
of a normal quantile by skewness and kurtosis, and the normal law itself. A fourth, `conformal_step`, asks the level itself
whether it keeps what it says, bar after bar.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numba import float64, int64, njit, types

from rlaif_ray.errors import DataError
from rlaif_ray.features.co_movement import FLAT

_F1 = types.Array(float64, 1, "C", readonly=True)
_PAIR = types.UniTuple(float64, 2)

_ROUNDING = 1e-12  # the normal shape itself stands on the edge of the domain
WINDOW_BARS = 250  # losses that the conformal quantile looks back on: about a year of days
LEAST_BARS = 60  # fewer say nothing of a tail
STEP = 0.01  # gamma of the adaptive level: a miss moves it by about a bar in a hundred

MISS, QUANTILE, CVAR, SEEN, _LOSSES = range(5)  # memory of `conformal_step`: four numbers, the last losses, and those sorted
MEMORY = _LOSSES + 2 * WINDOW_BARS


class TailRisk(NamedTuple):
    """Fractions of equity in one bar, positive for a loss; cvar >= var. NaN where the method has no say."""

    var: float
    cvar: float


def historical(returns: np.ndarray, level: float) -> TailRisk:
    """The smallest loss that no more than 1 - level of the bars exceed, and the mean of exactly that worst share.

    Rockafellar and Uryasev (2002), "Conditional value-at-risk for general loss distributions", proposition 8: where the
    share cuts through a bar, part of the bar counts. `returns` (T,) simple; `DataError` where they are not finite.
    """
    returns, level = _checked(returns, level)
    return TailRisk(*historical_tail(np.sort(-returns), level))


def cornish_fisher(returns: np.ndarray, level: float) -> TailRisk:
    """By the moments of the returns (T,): Z = z + (z^2-1) S/6 + (z^3-3z) K/24 - (2z^3-5z) S^2/36 for the normal quantile z.

    Cornish and Fisher (1937); CVaR is the mean of Z over the normal tail, in closed form. Z is a quantile only where it
    rises with z everywhere (Maillard 2012, "A user's guide to the Cornish Fisher expansion"): for skewness S and excess
    kurtosis K with S^2/9 <= 4 (K/8 - S^2/6)(1 - K/8 + 5 S^2/36), so |S| <= 2.49 and 0 <= K <= 8. Beyond, both are NaN.
    """
    returns, level = _checked(returns, level)
    return TailRisk(*cornish_fisher_tail(-returns, *normal_tail(level)))


def normal_tail(level: float) -> tuple[float, float]:
    """(VaR, CVaR) of a standard normal loss."""
    z = NormalDist().inv_cdf(level)
    return z, NormalDist().pdf(z) / (1.0 - level)


def _checked(returns: np.ndarray, level: float) -> tuple[np.ndarray, float]:
    returns = np.asarray(returns, np.float64)
    if returns.ndim != 1 or not len(returns) or not np.isfinite(returns).all():
        bad = int(returns.size - np.isfinite(returns).sum())
        raise DataError(f"returns of shape {returns.shape}, {bad} of them not finite; expected (T,), one bar or more, all finite")
    if not 0.0 < level < 1.0:
        raise DataError(f"level of a tail risk is {level}; expected one in (0, 1), 0.99 for the worst bar in a hundred")
    return returns, level


@njit(_PAIR(_F1, float64), cache=True, error_model="numpy", nogil=True)
def historical_tail(losses, level):  # pragma: no cover
    """(VaR, CVaR) of losses (n,) that rise; callable from compiled code."""
    n = len(losses)
    first = min(max(math.ceil(level * n - 1e-9) - 1, 0), n - 1)
    beyond = 0.0
    for k in range(first + 1, n):
        beyond += losses[k] - losses[first]
    return losses[first], losses[first] + beyond / ((1.0 - level) * n)


@njit(_PAIR(_F1, float64, float64), cache=True, error_model="numpy", nogil=True)
def cornish_fisher_tail(losses, z, shortfall):  # pragma: no cover
    """(VaR, CVaR) of losses (n,) for a normal loss of those; NaN outside the expansion's domain. Callable from compiled code."""
    n = len(losses)
    mean, size = 0.0, 0.0
    for x in losses:
        mean += x / n
        size += x * x / n
    second, third, fourth = 0.0, 0.0, 0.0
    for x in losses:
        square = (x - mean) ** 2
        second += square / n
        third += square * (x - mean) / n
        fourth += square * square / n
    if second <= FLAT * size:  # the same loss each bar: what is left is rounding, and has no shape
        return mean, mean
    deviation = math.sqrt(second)
    s, k = third / (second * deviation), fourth / (second * second) - 3.0
    curve, flat = k / 8.0 - s * s / 6.0, 1.0 - k / 8.0 + 5.0 * s * s / 36.0  # of dZ/dz, a parabola in z
    if curve < -_ROUNDING or flat < 0.0 or s * s / 9.0 > 4.0 * curve * flat + _ROUNDING:
        return np.nan, np.nan
    quantile = z + (z * z - 1.0) * s / 6.0 + (z**3 - 3.0 * z) * k / 24.0 - (2.0 * z**3 - 5.0 * z) * s * s / 36.0
    beyond = shortfall * (1.0 + z * s / 6.0 + (z * z - 1.0) * k / 24.0 - (2.0 * z * z - 1.0) * s * s / 36.0)
    return mean + deviation * quantile, mean + deviation * beyond


@njit(int64(float64[::1], float64, int64), cache=True, nogil=True)
def _remember(memory, loss, n):  # pragma: no cover
    """The loss into the ring and into its place among the sorted; the oldest falls out. Returns how many there are now."""
    ring, ranked = memory[_LOSSES : _LOSSES + WINDOW_BARS], memory[_LOSSES + WINDOW_BARS :]
    at = int(memory[SEEN]) % WINDOW_BARS
    hole = np.searchsorted(ranked, ring[at]) if n == WINDOW_BARS else n
    ring[at] = loss
    memory[SEEN] += 1.0
    while hole > 0 and ranked[hole - 1] > loss:
        ranked[hole] = ranked[hole - 1]
        hole -= 1
    last = min(n, WINDOW_BARS - 1)
    while hole < last and ranked[hole + 1] < loss:
        ranked[hole] = ranked[hole + 1]
        hole += 1
    ranked[hole] = loss
    return last + 1


@njit(types.void(float64[::1], float64), cache=True, nogil=True)
def conformal_start(memory, share):  # pragma: no cover
    """An empty memory (MEMORY,) for a tail that `share` of the bars may exceed."""
    memory[:] = 0.0
    memory[MISS], memory[QUANTILE], memory[CVAR] = share, np.nan, np.nan


@njit(types.void(float64[::1], float64, float64), cache=True, nogil=True)
def conformal_step(memory, loss, share):  # pragma: no cover
    """Take in one bar's loss: whether the quantile held, then quantile and mean loss beyond it for the next bar.

    Gibbs and Candes (2021), "Adaptive conformal inference under distribution shift", eq. 2: the share m that is asked for
    moves by STEP * (share - missed), so that over T bars, whatever the losses do, the exceedances of the quantile differ from
    `share` by no more than (max(m, 1 - m) + STEP) / (STEP * T) with the m of the start (proposition 4.1). The quantile is
    the ceil((n+1)(1-m))-th smallest of the last n losses, infinite beyond the largest; then the largest alone is the tail.
    Quantile and CVaR are NaN until LEAST_BARS losses are in.

    Parameters
    ----------
    memory : (MEMORY,) as `conformal_start` left it, changed in place.
    """
    n = int(min(memory[SEEN], WINDOW_BARS))
    if n >= LEAST_BARS:
        memory[MISS] += STEP * (share - (1.0 if loss > memory[QUANTILE] else 0.0))
    n = _remember(memory, loss, n)
    if n < LEAST_BARS:
        return
    ranked = memory[_LOSSES + WINDOW_BARS :]
    rank = math.ceil((n + 1) * (1.0 - memory[MISS]) - 1e-9)
    memory[QUANTILE] = np.inf if rank > n else -np.inf if rank < 1 else ranked[rank - 1]
    first = min(max(rank, 1), n) - 1
    beyond = 0.0
    for k in range(first, n):
        beyond += ranked[k]
    memory[CVAR] = beyond / (n - first)
