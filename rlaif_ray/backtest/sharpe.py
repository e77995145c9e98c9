"""Inference on Sharpe ratios: probabilistic, deflated, the track record that one needs, and the difference of two.

Bailey and Lopez de Prado (2012), "The Sharpe ratio efficient frontier", and (2014), "The deflated Sharpe ratio";
Ledoit and Wolf (2008), "Robust performance hypothesis testing with the Sharpe ratio". Ratios are per bar unless a name
says annual; the risk-free rate is 0 (or the returns are already in excess of something).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import float64, int64, njit
from scipy.special import ndtr, ndtri

from rlaif_ray.backtest import observations
from rlaif_ray.backtest.significance import LEVEL, block_length
from rlaif_ray.errors import DataError

LONGEST_MEMORY = 0.97  # of the prewhitening autoregression: Andrews and Monahan (1992), p. 957
CIRCULAR = 1.5 ** (1 / 3)  # blocks of fixed length over geometric ones at their best: Patton, Politis and White (2009)


@dataclass(frozen=True)
class Moments:
    """What a Sharpe ratio's standard error depends on: the ratio per bar, skewness, kurtosis (3 for a normal) and bars."""

    sharpe: float
    skew: float
    kurtosis: float
    bars: float

    @classmethod
    def of(cls, returns: np.ndarray) -> Moments:
        """Of (T,) returns; the standard deviation is over T - 1, the higher moments over T."""
        r = observations.series(returns, "returns")
        z = (r - r.mean()) / r.std()
        return cls(float(r.mean() / r.std(ddof=1)), float((z**3).mean()), float((z**4).mean()), len(r))

    @property
    def spread(self) -> float:
        """sqrt(T - 1) times the ratio's standard error: Mertens (2002), as in Bailey and Lopez de Prado (2012)."""
        variance = 1 - self.skew * self.sharpe + (self.kurtosis - 1) / 4 * self.sharpe**2
        if variance <= 0:
            raise DataError(f"skewness {self.skew:g} and kurtosis {self.kurtosis:g} leave a ratio of {self.sharpe:g} without variance")
        return float(np.sqrt(variance))


@dataclass(frozen=True)
class SharpeDifference:
    """Annual Sharpe ratio minus the other's, its 95% interval, its standard error and the two-sided p-value of no difference."""

    value: float
    low: float
    high: float
    error: float
    p_value: float


def probabilistic_sharpe(found: Moments, *, threshold: float = 0.0) -> float:
    """Probability that the true Sharpe ratio per bar exceeds `threshold`: Bailey and Lopez de Prado (2012), PSR."""
    if found.bars <= 1:
        raise DataError(f"a Sharpe ratio of {found.bars:g} bars has no distribution; expected more than one")
    return float(ndtr((found.sharpe - threshold) * np.sqrt(found.bars - 1) / found.spread))


def minimum_track_record(found: Moments, *, threshold: float = 0.0, confidence: float = LEVEL) -> float:
    """Bars after which a ratio like this one is above `threshold` with `confidence`: Bailey and Lopez de Prado (2012), MinTRL.

    Infinite where the ratio found is not above the threshold: no track record would show it.
    """
    if found.sharpe <= threshold:
        return np.inf
    return float(1 + (found.spread * ndtri(confidence) / (found.sharpe - threshold)) ** 2)


def expected_maximum_sharpe(*, trials: float, variance: float) -> float:
    """The best Sharpe ratio to be expected of `trials` independent ones without skill: Bailey and Lopez de Prado (2014), eq. 1.

    `variance` is that of the trials' Sharpe ratios, per bar. 0 for one trial; the formula, made for many, is kept from
    falling below that.
    """
    if not (trials >= 1 and variance >= 0):
        raise DataError(f"{trials:g} trials with a variance of {variance:g}; expected at least one trial and a variance of 0 or more")
    if trials == 1:
        return 0.0
    best = (1 - np.euler_gamma) * ndtri(1 - 1 / trials) + np.euler_gamma * ndtri(1 - 1 / (trials * np.e))
    return float(np.sqrt(variance) * max(best, 0.0))


def deflated_sharpe(found: Moments, *, trials: float, variance: float) -> float:
    """Probability that the best of `trials` has a true Sharpe ratio above what chance makes the best of them.

    Bailey and Lopez de Prado (2014), eq. 2. `trials` is the number of independent ones (`power.effective_trials`),
    `variance` that of the trials' Sharpe ratios per bar.
    """
    return probabilistic_sharpe(found, threshold=expected_maximum_sharpe(trials=trials, variance=variance))


def sharpe_difference(
    returns: np.ndarray, other: np.ndarray, *, bars_per_year: float, block: int | None = None, resamples: int = 1000, seed: int
) -> SharpeDifference:
    """Whether two Sharpe ratios on the same bars differ: Ledoit and Wolf (2008), section 3.2.

    The studentised circular block bootstrap: the standard error is a prewhitened Parzen one for the sample, and that of
    the blocks drawn for each resample; p-value and interval are symmetric.

    Parameters
    ----------
    returns, other : (T,) returns of the same bars, excess or plain.
    block : bars in a block; None takes Politis and White's for the series that drives the difference.
    """
    observations.same_shape(returns, other, "the returns and the others")
    pair = np.stack([observations.series(returns, "returns"), observations.series(other, "the other returns")])
    bars = pair.shape[1]
    difference, influence = _difference(pair)
    if np.ptp(influence) <= observations.ROUNDING:
        raise DataError("the two return series have one Sharpe ratio in every bar; expected series that are not multiples of each other")
    error = np.sqrt(long_run_variance(influence) / (bars - 4))  # T - 4 for the four moments: their section 3.1
    if block is None:
        block = int(min(np.ceil(CIRCULAR * block_length(influence)), bars // 2))
    block = int(observations.block_of(bars, block, "the pair of return series"))
    starts = np.random.default_rng(seed).integers(0, bars, (resamples, bars // block))
    distances = _studentised(pair, starts, block, difference)
    if np.isinf(reach := np.quantile(distances, LEVEL)):
        raise DataError(f"{bars} bars in blocks of {block} leave resamples without variance; shorten the block")
    p_value = (1 + int((distances >= abs(difference) / error).sum())) / (resamples + 1)
    year = np.sqrt(bars_per_year)
    low, high = (difference - reach * error) * year, (difference + reach * error) * year
    return SharpeDifference(float(difference * year), float(low), float(high), float(error * year), p_value)


def long_run_variance(series: np.ndarray) -> float:
    """Variance of sqrt(T) times the mean of (T,): Parzen's kernel on the residuals of an autoregression of order one.

    Andrews and Monahan (1992); the bandwidth is Andrews's (1991, eq. 6.2 and 6.4). Never negative.
    """
    centred = series - series.mean()
    memory = _first_order(centred)
    residual = centred[1:] - memory * centred[:-1]
    rho = _first_order(residual)
    bandwidth = 2.6614 * (4 * rho**2 / (1 - rho) ** 4 * len(residual)) ** 0.2
    lags = np.arange(1, min(int(bandwidth), len(residual) - 1) + 1)
    z = lags / bandwidth if len(lags) else np.empty(0)
    weights = np.where(z <= 0.5, 1 - 6 * z**2 * (1 - z), 2 * (1 - z) ** 3)
    covariances = np.array([residual[lag:] @ residual[:-lag] for lag in lags])
    return float((residual @ residual + 2 * weights @ covariances) / len(residual) / (1 - memory) ** 2)


def _first_order(centred: np.ndarray) -> float:
    slope = centred[1:] @ centred[:-1] / (centred[:-1] @ centred[:-1])
    return float(np.clip(slope, -LONGEST_MEMORY, LONGEST_MEMORY))


def _difference(pair: np.ndarray) -> tuple[float, np.ndarray]:
    """Sharpe difference of (2,T), and what each bar adds to it (T,): the gradient along the four moments, the bar's share of them."""
    mean, square = pair.mean(axis=1), (pair**2).mean(axis=1)
    deviation = np.sqrt(square - mean**2)
    slope_mean, slope_square = square / deviation**3, -0.5 * mean / deviation**3
    each = slope_mean[:, None] * (pair - mean[:, None]) + slope_square[:, None] * (pair**2 - square[:, None])
    ratio = mean / deviation
    return float(ratio[0] - ratio[1]), each[0] - each[1]


@njit(float64[::1](float64[:, ::1], int64[:, ::1], int64, float64), cache=True)
def _studentised(pair, starts, block, difference):  # pragma: no cover
    """|resampled difference - difference| over its own standard error, for each row of starts; infinite without one.

    A block's sums are looked up, so a resample costs as many steps as it has blocks.
    """
    bars, drawn = pair.shape[1], starts.shape[1]
    sums = np.zeros((bars, 4))  # of both returns and their squares, over the block that starts in each bar
    for i in range(2):
        for t in range(bars):
            for k in range(block):
                r = pair[i, (t + k) % bars]
                sums[t, i] += r
                sums[t, 2 + i] += r * r
    out, v, slope = np.empty(starts.shape[0]), np.empty(4), np.empty(4)
    for m in range(starts.shape[0]):
        v[:] = 0.0
        for j in range(drawn):
            v += sums[starts[m, j]]
        v /= drawn * block
        if v[2] - v[0] ** 2 <= 1e-12 * v[2] or v[3] - v[1] ** 2 <= 1e-12 * v[3]:
            out[m] = np.inf
            continue
        for i in range(2):
            sign, deviation = 1.0 - 2.0 * i, np.sqrt(v[2 + i] - v[i] ** 2)
            slope[i], slope[2 + i] = sign * v[2 + i] / deviation**3, -sign * 0.5 * v[i] / deviation**3
        resampled = v[0] / np.sqrt(v[2] - v[0] ** 2) - v[1] / np.sqrt(v[3] - v[1] ** 2)
        squares = 0.0
        for j in range(drawn):
            total = 0.0
            for c in range(4):
                total += slope[c] * (sums[starts[m, j], c] - block * v[c])
            squares += total * total
        error = np.sqrt(squares / block / drawn / (drawn * block))
        out[m] = abs(resampled - difference) / error if error > 0.0 else np.inf
    return out
